module libmux.test/qtalk

go 1.21

require github.com/progrium/qtalk-go v0.5.0

require golang.org/x/net v0.0.0-20210420210106-798c2154c571 // indirect
