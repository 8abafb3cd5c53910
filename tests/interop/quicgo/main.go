// quic-go as a live peer: plain streams under any protocol name, or, as "qtalk-quic", the rules of qtalk-go's QUIC
// sessions (whose own module needs a quic-go that no current Go compiles): an opener's first byte is '!', a session ends
// with code 42.
//
// "cert DIRECTORY" makes cert.pem and key.pem. "listen PROTOCOL DIRECTORY" prints its address, echoes every stream, resets
// one that says "reset" with code 77, and opens one of its own. "dial ADDRESS PROTOCOL" runs every check against a peer that
// echoes.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

func main() {
	err := fmt.Errorf("usage: quicgo cert DIRECTORY | quicgo listen PROTOCOL DIRECTORY | quicgo dial ADDRESS PROTOCOL")
	switch {
	case len(os.Args) == 3 && os.Args[1] == "cert":
		err = cert(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "listen":
		err = listen(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "dial":
		err = dial(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func cert(directory string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	made, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(directory, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	if err := write("cert.pem", "CERTIFICATE", made); err != nil {
		return err
	}
	return write("key.pem", "PRIVATE KEY", secret)
}

type peer struct {
	*quic.Conn
	qtalk bool
}

func (p peer) open() (*quic.Stream, error) {
	stream, err := p.OpenStreamSync(context.Background())
	if err == nil && p.qtalk {
		_, err = stream.Write([]byte("!"))
	}
	return stream, err
}

func (p peer) accept() (*quic.Stream, error) {
	stream, err := p.AcceptStream(context.Background())
	if err == nil && p.qtalk {
		_, err = io.ReadFull(stream, make([]byte, 1))
	}
	return stream, err
}

func (p peer) end() error {
	if p.qtalk {
		return p.CloseWithError(42, "close connection")
	}
	return p.CloseWithError(0, "")
}

func listen(protocol, directory string) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(directory, "cert.pem"), filepath.Join(directory, "key.pem"))
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{protocol}}
	listener, err := quic.ListenAddr("127.0.0.1:0", config, nil)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept(context.Background())
		if err != nil {
			return err
		}
		go serve(peer{conn, protocol == "qtalk-quic"})
	}
}

func serve(p peer) {
	if stream, err := p.open(); err == nil {
		stream.Write([]byte("from the peer"))
		stream.Close()
	}
	for {
		stream, err := p.accept()
		if err != nil {
			return
		}
		go echo(stream)
	}
}

func echo(stream *quic.Stream) {
	buffer := make([]byte, 64*1024)
	for {
		count, err := stream.Read(buffer)
		if bytes.Equal(buffer[:count], []byte("reset")) {
			stream.CancelWrite(77)
			return
		}
		if _, failed := stream.Write(buffer[:count]); failed != nil {
			return
		}
		if err == io.EOF {
			stream.Close()
			return
		}
		if err != nil {
			stream.CancelWrite(1)
			return
		}
	}
}

func dial(address, protocol string) error {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	conn, err := quic.DialAddr(context.Background(), address, config, nil)
	if err != nil {
		return err
	}
	p := peer{conn, protocol == "qtalk-quic"}
	// One that the listener opened, before anything of ours.
	greeting, err := p.accept()
	if err != nil {
		return err
	}
	said, err := io.ReadAll(greeting)
	if err != nil || string(said) != "from the server" {
		return fmt.Errorf("the listener said %q: %v", said, err)
	}
	if _, err := greeting.Write(said); err != nil {
		return err
	}
	greeting.Close()
	if err := echoed(p, 16<<20); err != nil {
		return err
	}
	var all sync.WaitGroup
	failures := make(chan error, 100)
	for range 100 {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := echoed(p, 10_000); err != nil {
				failures <- err
			}
		}()
	}
	all.Wait()
	close(failures)
	if err := <-failures; err != nil {
		return err
	}
	// The last acknowledgements are on their way.
	time.Sleep(100 * time.Millisecond)
	fmt.Println("ok")
	return p.end()
}

func echoed(p peer, size int) error {
	stream, err := p.open()
	if err != nil {
		return err
	}
	data := make([]byte, size)
	rand.Read(data)
	failed := make(chan error, 1)
	go func() {
		_, err := stream.Write(data)
		stream.Close()
		failed <- err
	}()
	got, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	if err := <-failed; err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d of %d bytes came back, or others", len(got), size)
	}
	return nil
}
