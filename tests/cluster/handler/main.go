// A handler that reports its runs to the tests: one JSON line per event, in the format of tests/src/history.rs, to
// the address in JOURNAL. The payload says what a task does, and MODE how the handler starts and answers.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The payload of a task.
type order struct {
	Millis int    `json:"ms"`
	How    string `json:"how"` // "memory": uses memory until it is killed; "never": answers 410
}

type journal struct {
	sync.Mutex
	address string
	conn    net.Conn
}

// Identifies this process: process ids are the same in every pod.
var self = rand.Uint32()
var runs atomic.Uint64

func (j *journal) connect() {
	for {
		conn, err := net.DialTimeout("tcp", j.address, 3*time.Second)
		if err == nil {
			_, err = fmt.Fprintf(conn, `{"handler":%d}`+"\n", self)
		}
		if err == nil {
			if j.conn != nil {
				j.conn.Close()
			}
			j.conn = conn
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Returns after the journal has answered with a byte, so the line is stored even if this process ends right after
// that. If the answer is lost, the line is sent again; the journal counts it once.
func (j *journal) note(event map[string]any) {
	line, _ := json.Marshal(event)
	j.Lock()
	defer j.Unlock()
	for answer := make([]byte, 1); ; j.connect() {
		j.conn.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := j.conn.Write(append(line, '\n')); err != nil {
			continue
		}
		if _, err := j.conn.Read(answer); err == nil {
			return
		}
	}
}

func number(r *http.Request, header string) int64 {
	n, err := strconv.ParseInt(r.Header.Get(header), 10, 64)
	if err != nil {
		log.Fatalf("%s: %v", header, err)
	}
	return n
}

func (j *journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var task order
	if err := json.NewDecoder(r.Body).Decode(&task); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	run := fmt.Sprintf("%d-%d", self, runs.Add(1))
	attempt := number(r, "rowlock-attempt")
	j.note(map[string]any{
		"event": "started", "run": run, "handler": self, "id": number(r, "ce-id"), "attempt": attempt,
		"token": number(r, "rowlock-fencing-token"), "at": time.Now().UnixNano(),
	})
	if task.How == "memory" {
		fill()
	}
	time.Sleep(time.Duration(task.Millis) * time.Millisecond)
	if r.Context().Err() != nil {
		j.note(map[string]any{"event": "cut_off", "run": run, "at": time.Now().UnixNano()})
	}
	status := http.StatusOK
	if task.How == "never" {
		status = http.StatusGone
	}
	if os.Getenv("MODE") == "fail" {
		status = http.StatusInternalServerError
	}
	j.note(map[string]any{"event": "finished", "run": run, "status": status, "at": time.Now().UnixNano()})
	w.WriteHeader(status)
}

// Allocates memory until the kernel kills the process.
func fill() {
	for held := [][]byte{}; ; {
		page := make([]byte, 16<<20)
		for i := range page {
			page[i] = 1
		}
		held = append(held, page)
	}
}

func main() {
	switch os.Getenv("MODE") {
	case "crash":
		log.Fatal("crashing at the start, because MODE is crash")
	case "deaf":
		for {
			time.Sleep(time.Hour)
		}
	}
	j := &journal{address: os.Getenv("JOURNAL")}
	j.connect()
	go func() {
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		<-term
		// If SIGTERM comes too early, running tasks are interrupted, and the tests notice it.
		j.note(map[string]any{"event": "handler_ended", "handler": self, "at": time.Now().UnixNano()})
		os.Exit(0)
	}()
	log.Fatal(http.ListenAndServe("0.0.0.0:"+os.Getenv("PORT"), j))
}
