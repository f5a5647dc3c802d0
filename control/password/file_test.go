package password

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-crypt/crypt/algorithm"

	"baton/control/inspect"
)

// Hashes of "secret", by doveadm pw and openssl passwd.
const (
	blowfish = "$2y$05$s1PcjA4f02di2L4UgH0mIed.LUKBYsQYTKS58HugB/3fDbeZ5XGTK"
	sha512   = "$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1"
	rounds   = "$6$rounds=1000$BRzkOUYUbohuz/8U$wf3yDA48S7dq7hyKGQuYZTcgl3kpUdNR.P2xxy/tSMQQX9DNqk/CwQROEXh/pU1F6A7bvONac1ZfiImKnm7d9/"
	sha256   = "$5$BcEc3eKTLqx.aFJN$F.7BEQrVbglB49ZlmTrMhJD.X77JfAfS12OaxML1f79"
)

const users = "# users\n\nblowfish:" + blowfish + "\nprefixed:{BLF-CRYPT}" + blowfish + ":1000:1000::/home\r\n" +
	"sha512:" + sha512 + "\nrounds:{SHA512-CRYPT}" + rounds + "\nsha256:{sha256-crypt}" + sha256 + "\ncrypt:{CRYPT}" + sha512 + "\n"

func TestHashesOfEveryScheme(t *testing.T) {
	table, err := parse("x", []byte(users))
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"blowfish", "prefixed", "sha512", "rounds", "sha256", "crypt"} {
		for password, want := range map[inspect.Secret]inspect.Outcome{
			"secret": inspect.Right, "Secret": inspect.Wrong, "": inspect.Wrong, "secret ": inspect.Wrong,
			inspect.Secret(strings.Repeat("x", 4000)): inspect.Wrong, "sec\x00ret": inspect.Wrong,
		} {
			if got, err := table.check(user, password); got != want || err != nil {
				t.Errorf("%s with %q: %d, %v, want %d", user, string(password), got, err, want)
			}
		}
	}
}

// The password of whom an unknown user is compared with does not let him in.
func TestUnknownUsersHaveNoPassword(t *testing.T) {
	for _, text := range []string{users, "ann:" + sha512 + "\n", "", "# nobody\n"} {
		table, err := parse("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"eve", "", "Blowfish", "# users"} {
			if got, err := table.check(user, "secret"); got != inspect.Wrong || err != nil {
				t.Errorf("%q: %d, %v", user, got, err)
			}
		}
	}
}

// counted is a hash that counts how often it is compared with.
type counted struct {
	algorithm.Digest
	n *int
}

func (c counted) MatchAdvanced(password string) (bool, error) {
	*c.n++
	return c.Digest.MatchAdvanced(password)
}

// Otherwise a refusal in no time would say that there is no such user.
func TestUnknownUsersTakeAsMuchWork(t *testing.T) {
	table, err := parse("x", []byte("ann:"+sha512+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	table.all[0] = counted{table.all[0], &n}
	table.hashes["ann"] = table.all[0]
	for i, user := range []string{"ann", "eve", "bob"} {
		if got, err := table.check(user, "x"); got != inspect.Wrong || err != nil || n != i+1 {
			t.Errorf("%s: %d, %v, %d comparisons", user, got, err, n)
		}
	}
}

// Hashing takes longer the longer they are, and clients choose that.
func TestLongPasswordsAreNotHashed(t *testing.T) {
	table, err := parse("x", []byte("ann:"+sha512+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	table.hashes["ann"] = counted{table.hashes["ann"], &n}
	for _, length := range []int{maxPassword, maxPassword + 1, 4096} {
		got, err := table.check("ann", inspect.Secret(strings.Repeat("x", length)))
		if got != inspect.Wrong || err != nil || n != 1 {
			t.Errorf("%d octets: %d, %v, %d comparisons", length, got, err, n)
		}
	}
}

func TestBadLinesAreNamed(t *testing.T) {
	for _, row := range []struct {
		name, line, want string
		is               error
	}{
		{"no hash", "ann", "x:2: bad line of a password file: want USER:HASH", ErrSyntax},
		{"no user", ":" + sha512, "x:2: bad line of a password file: want USER:HASH", ErrSyntax},
		{"twice", "ann:" + sha512 + "\nann:" + sha256, `x:3: bad line of a password file: "ann" is there twice`, ErrSyntax},
		{"clear text", "ann:secret", "x:2: bad hash: want bcrypt's", ErrHash},
		{"plain scheme", "ann:{PLAIN}secret", "x:2: bad hash: want bcrypt's", ErrHash},
		{"MD5", "ann:$apr1$abc$DDmBwzkKhbTP4m3HB3yRq/", "x:2: bad hash: want bcrypt's", ErrHash},
		{"too cheap", "ann:$2y$03$" + blowfish[7:], "x:2: bad hash", ErrHash},
		{"too dear", "ann:$2y$31$" + blowfish[7:], "x:2: bad hash", ErrHash},
		{"too many rounds", "ann:" + strings.Replace(rounds, "1000", "99999999", 1), "x:2: bad hash", ErrHash},
		{"too short", "ann:" + sha512[:80], "x:2: bad hash", ErrHash},
		{"more after it", "ann:" + sha512 + "x", "x:2: bad hash", ErrHash},
		{"empty", "ann:", "x:2: bad hash", ErrHash},
	} {
		_, err := parse("x", []byte("# one\n"+row.line+"\n"))
		if !errors.Is(err, row.is) || !strings.HasPrefix(err.Error(), row.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
}

func TestFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write := func(text string, age time.Duration) {
		t.Helper()
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write("ann:"+sha512+"\n", time.Hour)
	var log bytes.Buffer
	f, err := OpenFile(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	check := func(name, user string, want inspect.Outcome) {
		t.Helper()
		now = now.Add(lookPeriod)
		if got, err := f.current(now).check(user, "secret"); got != want || err != nil {
			t.Errorf("%s: %s: %d, %v, want %d", name, user, got, err, want)
		}
	}
	check("at first", "ann", inspect.Right)
	write("bob:"+sha256+"\n", 30*time.Minute)
	check("changed", "bob", inspect.Right)
	check("changed", "ann", inspect.Wrong)
	write("nonsense\n", 20*time.Minute)
	check("bad", "bob", inspect.Right)
	check("bad for long", "bob", inspect.Right)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("gone", "bob", inspect.Right)
	check("gone for long", "bob", inspect.Right)
	write("ann:"+sha512+"\n", 10*time.Minute)
	check("back", "ann", inspect.Right)
	if n := strings.Count(log.String(), "stay as they were"); n != 2 || strings.Count(log.String(), "read again") != 2 {
		t.Errorf("log:\n%s", log.String())
	}
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := OpenFile(path, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
	if err := CheckFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
}

// FuzzParse checks that every file is either read, with hashes that can be compared with, or refused by its line.
func FuzzParse(f *testing.F) {
	f.Add([]byte(users))
	f.Add([]byte("a:$5$rounds=1000$$" + sha256[20:] + "\nb::\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parse("x", data)
		switch {
		case err != nil && !errors.Is(err, ErrHash) && !errors.Is(err, ErrSyntax):
			t.Errorf("%v, want ErrHash or ErrSyntax", err)
		case err != nil:
			return
		}
		for user, hash := range table.hashes {
			if len(hash.Key()) == 0 || len(hash.Salt()) == 0 {
				t.Errorf("%q has the hash %q", user, hash)
			}
		}
	})
}
