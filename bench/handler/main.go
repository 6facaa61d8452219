// The handler of the HTTP benchmarks: net/http, some work per request, and counters.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

var served, running atomic.Int64

func main() {
	work := flag.String("work", "sleep", "sleep: wait for -for; spin: compute for it")
	length := flag.Duration("for", time.Millisecond, "length of the work of one request")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /tasks", func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		do(*work, *length)
		served.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})
	http.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%d %d\n", served.Load(), running.Load())
	})
	// The benchmark reads the address from the first line of output.
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

func do(work string, length time.Duration) {
	if work == "sleep" {
		time.Sleep(length)
		return
	}
	// By the clock: on busy cores this is less work, for instances and wrk alike.
	for started := time.Now(); time.Since(started) < length; {
	}
}
