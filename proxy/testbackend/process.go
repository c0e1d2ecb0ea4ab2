package testbackend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// child is what a process is told in the environment.
type child struct {
	Config
	Network, Address string
}

const childVariable = "STENT_TESTBACKEND"

// Main is the backend where Start has started this binary as one, and does
// not return then. TestMain calls it first.
func Main() {
	told := os.Getenv(childVariable)
	if told == "" {
		return
	}
	var c child
	err := json.Unmarshal([]byte(told), &c)
	if err == nil {
		err = c.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbackend:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bookFD is the pipe to which a child writes its records.
const bookFD = 3

// serve runs until SIGTERM, which closes all connections with 1012, or until
// the parent has gone.
func (c *child) serve() error {
	book := os.NewFile(bookFD, "book")
	var mu sync.Mutex
	var line []byte
	s := &Server{Config: c.Config, Book: func(r Record) {
		mu.Lock()
		defer mu.Unlock()
		line = r.append(line[:0])
		if _, err := book.Write(line); err != nil {
			os.Exit(1) // nobody is there to read it
		}
	}}
	if c.Network == "unix" {
		if err := os.Remove(c.Address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	l, err := net.Listen(c.Network, c.Address)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the parent has gone
	}()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	srv := &http.Server{Handler: s}
	go srv.Serve(l)
	s.Book(Record{Kind: Ready})
	<-ended
	l.Close()
	s.Close(websocket.StatusServiceRestart, "restarting")
	for range 100 { // the last legs write their records
		if s.Len() == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// Process is a backend in a process of its own.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	joined chan struct{} // its book is read to the end
}

// Start runs this binary again as a backend that listens at address, and
// returns when it does. Its records go to the ledger.
func Start(ctx context.Context, c Config, network, address string, ledger *Ledger) (*Process, error) {
	told, err := json.Marshal(child{c, network, address})
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childVariable+"="+string(told))
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{out}
	p := &Process{cmd: cmd, joined: make(chan struct{})}
	if p.stdin, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	out.Close()
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("start backend: %w", err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(p.joined)
		defer in.Close()
		var once sync.Once
		if err := ledger.read(in, func() { once.Do(func() { close(ready) }) }); err != nil {
			fmt.Fprintln(os.Stderr, "testbackend:", err)
		}
	}()
	select {
	case <-ready:
		return p, nil
	case <-p.joined:
		return nil, fmt.Errorf("start backend at %s: %w", address, cmd.Wait())
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("start backend at %s: %w", address, ctx.Err())
	}
}

// Kill ends the process as a crash does (kill -9) and returns when it is
// gone and its book read.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	p.wait()
}

// Stop ends the process politely: it closes its connections with 1012.
func (p *Process) Stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
}

func (p *Process) wait() {
	<-p.joined
	p.cmd.Wait() // killed: its status says so and nothing else
	p.stdin.Close()
}
