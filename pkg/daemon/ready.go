package daemon

import (
	"fmt"
	"net"
	"os"
)

// ready tells systemd, where it started this process and waits, that requests
// are served: what it orders after us starts now. See sd_notify(3).
func ready() error {
	socket := os.Getenv("NOTIFY_SOCKET") // @name is an abstract one, for Go too
	if socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte("READY=1"))
	}
	if err != nil {
		return fmt.Errorf("tell systemd that requests are served: %w", err)
	}
	return nil
}
