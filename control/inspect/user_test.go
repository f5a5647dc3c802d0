package inspect

import (
	"errors"
	"fmt"
	"testing"
)

// to is the choice of one job.
func to(job string) Choice { return Choice{Job: job} }

func TestFirstMatchingUserRuleDecides(t *testing.T) {
	p := newPOP3(t, "rest", UserRule{"root", to("admin")}, UserRule{"*@a.example", to("a")}, UserRule{"eve@a.example", to("never")},
		UserRule{"eve@B.example", to("eve")}, UserRule{"*@b.EXAMPLE", to("b")}, UserRule{"root", to("never")})
	for user, job := range map[string]string{
		"root": "admin", "Root": "rest", "eve@a.example": "a", "ann@A.EXAMPLE": "a", "eve@b.example": "eve",
		"Eve@b.example": "b", "x@y@b.example": "b", "@b.example": "b", "a.example": "rest", "x@sub.a.example": "rest",
	} {
		if got, _ := p.job(user); got != job {
			t.Errorf("%s: %s, want %s", user, got, job)
		}
	}
}

func TestBadUserRules(t *testing.T) {
	for _, r := range []struct {
		rule UserRule
		want error
	}{
		{UserRule{"", Choice{Map: map[string]string{"ann@A.example": "j", "ann@a.example": "k"}}}, ErrMap},
		{UserRule{"*@", to("j")}, ErrUser}, {UserRule{"a b", to("j")}, ErrUser},
		{UserRule{"*", to("j")}, ErrUser}, {UserRule{"*a*", to("j")}, ErrUser}, {UserRule{"a*b", to("j")}, ErrUser}, {UserRule{"a\r", to("j")}, ErrUser}, {UserRule{"a", to("")}, ErrJob},
	} {
		if _, err := NewPOP3(UserConfig{Rules: []UserRule{r.rule}}); !errors.Is(err, r.want) {
			t.Errorf("%q: %v, want %v", r.rule, err, r.want)
		}
	}
}

func TestPrefixAndSuffixOfUsers(t *testing.T) {
	p := newPOP3(t, "rest", UserRule{"shop-*", to("shop")}, UserRule{"*.example", to("example")}, UserRule{"*-ops", to("ops")})
	for user, job := range map[string]string{
		"shop-": "shop", "shop-1@a.example": "shop", "Shop-1": "rest", "x@B.EXAMPLE": "example", "web-ops": "ops", "ops": "rest",
	} {
		if got, _ := p.job(user); got != job {
			t.Errorf("%s: %s, want %s", user, got, job)
		}
	}
}

func TestMapsOfUsers(t *testing.T) {
	p := newPOP3(t, "", UserRule{"*@a.example", Choice{Map: map[string]string{"ann@A.example": "1"}}},
		UserRule{"", Choice{Map: map[string]string{"bob": "2", "*@B.example": "3", "ann@b.example": "4"}}}, UserRule{"z*", to("5")})
	for _, row := range []struct {
		user, job string
		rule      int
	}{
		{"ann@a.example", "1", 1}, {"bob", "2", 2}, {"bob@a.example", "", 0}, {"bob@b.example", "3", 2}, {"ann@b.example", "4", 2},
		{"zoe", "5", 3}, {"eve", "", 0},
	} {
		if job, rule := p.job(row.user); job != row.job || rule != row.rule {
			t.Errorf("%s: %q by rule %d, want %q by %d", row.user, job, rule, row.job, row.rule)
		}
	}
}

func TestHashSharesAndMovesLittle(t *testing.T) {
	three, four := Choice{Hash: []string{"a", "b", "c"}}, Choice{Hash: []string{"d", "c", "b", "a"}}
	count := map[string]int{}
	for i := range 3000 {
		user := fmt.Sprint("user", i)
		before, after := three.of(user), four.of(user)
		count[before]++
		if after != before && after != "d" {
			t.Errorf("%s moves from %s to %s when d comes", user, before, after)
		}
	}
	for job, n := range count {
		if n < 900 || n > 1100 {
			t.Errorf("%s has %d of 3000 users", job, n)
		}
	}
}

func TestBadChoices(t *testing.T) {
	for _, row := range []struct {
		choice Choice
		want   error
	}{
		{Choice{}, ErrJob}, {Choice{Job: "a", Hash: []string{"b"}}, ErrMap}, {Choice{Hash: []string{"a", ""}}, ErrJob},
		{Choice{Map: map[string]string{"": "a"}}, ErrMap}, {Choice{Map: map[string]string{"a": ""}}, ErrMap},
	} {
		if err := row.choice.check(); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v, want %v", row.choice, err, row.want)
		}
	}
}
