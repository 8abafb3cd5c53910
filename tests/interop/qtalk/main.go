// The Go implementation of the base protocol as a live peer.
//
// "listen [late|never]" prints its address, echoes every channel, and opens one channel that it closes without EOF; late: it
// accepts nothing for two seconds; never: nothing at all. "dial ADDRESS [late]" runs every check against a peer that echoes;
// late: it accepts nothing for two seconds.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sync"
	"time"

	"github.com/progrium/qtalk-go/mux"
)

func main() {
	err := fmt.Errorf("usage: qtalk listen [late|never] | qtalk dial ADDRESS [late]")
	mode := os.Args[len(os.Args)-1]
	switch {
	case len(os.Args) >= 2 && os.Args[1] == "listen":
		err = listen(mode)
	case len(os.Args) >= 3 && os.Args[1] == "dial":
		err = dial(os.Args[2], mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func listen(mode string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(mux.New(conn), mode)
	}
}

func serve(session *mux.Session, mode string) {
	go func() {
		channel, err := session.Open(context.Background())
		if err == nil {
			channel.Write([]byte("from the peer"))
			channel.Close()
		}
	}()
	switch mode {
	case "late":
		time.Sleep(2 * time.Second)
	case "never":
		return
	}
	for {
		channel, err := session.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(channel, channel)
			channel.CloseWrite()
		}()
	}
}

func dial(address, mode string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	session := mux.New(conn)
	if mode == "late" {
		time.Sleep(2 * time.Second)
	}
	greeting, err := session.Accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	said, err := io.ReadAll(greeting)
	if err != nil || string(said) != "from the server" {
		return fmt.Errorf("greeting %q: %w", said, err)
	}
	if _, err := greeting.Write(said); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := greeting.CloseWrite(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	if err := echoed(session, 16<<20); err != nil {
		return fmt.Errorf("16 MiB: %w", err)
	}
	var all sync.WaitGroup
	errors := make(chan error, 100)
	for i := 0; i < 100; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			errors <- echoed(session, 10_000)
		}()
	}
	all.Wait()
	close(errors)
	for err := range errors {
		if err != nil {
			return fmt.Errorf("one of many: %w", err)
		}
	}
	channel, err := session.Open(context.Background())
	if err != nil {
		return err
	}
	if _, err := channel.Write([]byte("bye")); err != nil {
		return err
	}
	if err := channel.Close(); err != nil {
		return fmt.Errorf("close without EOF: %w", err)
	}
	if err := echoed(session, 7); err != nil {
		return fmt.Errorf("after a close: %w", err)
	}
	fmt.Println("ok")
	return session.Close()
}

// echoed sends size bytes, ends its direction, and wants the same back up to the end.
func echoed(session *mux.Session, size int) error {
	channel, err := session.Open(context.Background())
	if err != nil {
		return err
	}
	data := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(channel, bytes.NewReader(data))
		if err == nil {
			err = channel.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(channel)
	if err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	if len(got) != size || sha256.Sum256(got) != sha256.Sum256(data) {
		return fmt.Errorf("%d of %d bytes came back, or others", len(got), size)
	}
	// Both directions are over, so the other side may have closed first; Close says EOF then.
	if err := channel.Close(); err != nil && err != io.EOF {
		return err
	}
	return nil
}
