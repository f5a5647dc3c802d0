package daemon

import (
	"fmt"
	"os/user"
	"strconv"

	"baton/control/appsock"
	"baton/control/config"
)

// Rights looks up the users whose applications are listened to. A number need not be a user that is known here.
func Rights(a config.Applications) ([]appsock.Right, error) {
	var all []appsock.Right
	for _, allowed := range a.Allow {
		uid, err := userID(allowed.User)
		if err != nil {
			return nil, fmt.Errorf("applications.allow: %w", err)
		}
		right := appsock.Right{UID: uid}
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
