-- wrk sends what an instance would: a POST with a JSON body.
wrk.method = "POST"
wrk.body = "{}"
wrk.headers["Content-Type"] = "application/json"
