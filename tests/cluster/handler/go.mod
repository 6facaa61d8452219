// The handler of the tests.
module rowlock.dev/tests/cluster/handler

go 1.26.0
