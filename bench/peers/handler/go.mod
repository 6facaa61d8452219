module rowlock.dev/bench/peers/handler

go 1.25
