package daemon

import (
	"fmt"
	"os/user"
	"strconv"
	"time"

	"baton/control/app"
	"baton/control/appsock"
	"baton/control/config"
)

// ControlSockets says where applications reach the daemon, and which may.
func ControlSockets(a config.Applications) (appsock.Sockets, error) {
	rights, err := Rights(a)
	return appsock.Sockets{Path: a.Socket, UDP: a.UDP, Lease: time.Duration(a.Lease), Rights: rights}, err
}

// Rights looks up the users whose applications are listened to. A number need not be a user that is known here.
func Rights(a config.Applications) ([]appsock.Right, error) {
	var all []appsock.Right
	for _, allowed := range a.Allow {
		uid, err := userID(allowed.User)
		if err != nil {
			return nil, fmt.Errorf("applications.allow: %w", err)
		}
		right := appsock.Right{UID: uid}
		if allowed.Token != "" {
			if right.Token, err = app.ReadToken(allowed.Token); err != nil {
				return nil, fmt.Errorf("applications.allow: user %s: %w", allowed.User, err)
			}
		}
		for _, s := range allowed.Services {
			right.Services = append(right.Services, s.String())
		}
		all = append(all, right)
	}
	return all, nil
}

func userID(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(n), err
}
