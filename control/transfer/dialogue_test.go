package transfer

import (
	"errors"
	"strings"
	"testing"
)

func TestDialogueIsBounded(t *testing.T) {
	record := []byte{1}
	turns := func(n int, t Turn) (list []Turn) {
		for range n {
			list = append(list, t)
		}
		return list
	}
	line := Turn{Say: []byte("EHLO c.example\r\n"), More: "250-", Last: "250 "}
	for name, row := range map[string]struct {
		d  Dialogue
		ok bool
	}{
		"none":             {Dialogue{}, true},
		"greeting":         {Dialogue{record, []Turn{{Last: "+OK"}}}, true},
		"longest":          {Dialogue{record, turns(MaxTurns, line)}, true},
		"too many turns":   {Dialogue{record, turns(MaxTurns+1, line)}, false},
		"too much said":    {Dialogue{record, []Turn{{Say: make([]byte, MaxSaid+1), Last: "x"}}}, false},
		"without a record": {Dialogue{nil, []Turn{{Last: "+OK"}}}, false},
		"record alone":     {Dialogue{record, nil}, false},
		"any answer":       {Dialogue{record, []Turn{{Say: []byte("x\n")}}}, false},
		"long pattern":     {Dialogue{record, []Turn{{Last: strings.Repeat("x", MaxTurnPattern+1)}}}, false},
	} {
		if err := row.d.Check(); (err == nil) != row.ok || err != nil && !errors.Is(err, ErrDialogue) {
			t.Errorf("%s: %v, want it fine: %t", name, err, row.ok)
		}
	}
}
