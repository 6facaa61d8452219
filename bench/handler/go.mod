module rowlock.dev/bench/handler

go 1.25
