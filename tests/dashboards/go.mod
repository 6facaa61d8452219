// Writes charts/rowlock/dashboards, and tests these files; `make check` runs the tests.
module rowlock.dev/tests/dashboards

go 1.25.0

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
