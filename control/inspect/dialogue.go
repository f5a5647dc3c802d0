package inspect

import "bytes"

// talker is a protocol in which the server greets, and answers commands one by one until one of them decides.
type talker interface {
	// command returns the length of the first command in data, with its end; 0: it is not whole yet. cause is why it cannot
	// become one.
	command(data []byte) (length int, cause Cause)
	// hear takes a command. NeedMore: it is dealt with by the answer. Route: it is left for the target to read, and the
	// decision has the dialogue that leads there. Either with a Login: that comes of it once the password is right.
	hear(command []byte) Decision
	// deny returns what the client is told of a password that is not Right, and forgets about the login. last: the
	// connection is closed then.
	deny(o Outcome, last bool) []byte
	Refusal(Cause) []byte
}

// dialogueCommands are those before the one that decides; a client that says more has no intention to log in.
const dialogueCommands = 20

// dialogue is a session of such a protocol.
type dialogue struct {
	talker
	asking
	greeting string
	greeted  bool
	said     int      // commands that were answered
	decided  Decision // once it is more than NeedMore
}

// Inspect implements Session.
func (s *dialogue) Inspect(data []byte) Decision {
	if s.decided.Verdict != NeedMore {
		return s.decided
	}
	answers := Decision{Reply: s.denial}
	if s.denial != nil {
		answers.Consumed, s.denial = s.length, nil
	}
	if !s.greeted {
		s.greeted = true
		answers.Reply = append(answers.Reply, s.greeting...)
	}
	for {
		rest := data[answers.Consumed:]
		n, cause := s.command(rest)
		switch {
		case cause != 0:
			return s.end(refuse(s.talker, cause, "not a command of the protocol"), answers)
		case n == 0:
			return answers
		}
		d := s.hear(rest[:n])
		if s.said++; d.Verdict == NeedMore && s.said > dialogueCommands {
			d = refuse(s.talker, Malformed, "too many commands before the one that decides")
		}
		if d.Login != nil {
			d = s.ask(d, n)
		}
		if d.Verdict != NeedMore {
			return s.end(d, answers)
		}
		answers.Consumed += n
		answers.Reply = append(answers.Reply, d.Reply...)
	}
}

// end ends the session, or has it wait for a password. What was answered before goes first. Of a target's part that is
// another call's business, because the client has to get those answers before.
func (s *dialogue) end(d, answers Decision) Decision {
	s.decided = d
	stays := d.Verdict == Route || d.Verdict == Ask
	if stays && (answers.Consumed > 0 || len(answers.Reply) > 0) {
		return answers
	}
	if !stays {
		s.decided.Reply = append(answers.Reply, d.Reply...)
	}
	return s.decided
}

// refuse is the decision to refuse a client, in the words of its protocol.
func refuse(s interface{ Refusal(Cause) []byte }, c Cause, detail string) Decision {
	return Decision{Verdict: Refuse, Cause: c, Detail: detail, Reply: s.Refusal(c)}
}

// say is the decision to answer and go on.
func say(text string) Decision { return Decision{Reply: []byte(text)} }

// line cuts the first line off data, of at most so many octets with its end, which is CRLF. n is 0 if that has not come
// yet.
func line(data []byte, most int) (n int, cause Cause) {
	n = bytes.IndexByte(data[:min(len(data), most)], '\n') + 1
	switch {
	case n == 0 && len(data) >= most:
		return 0, TooLarge
	case n == 1 || n > 1 && data[n-2] != '\r':
		return 0, Malformed
	}
	return n, 0
}

// textFor is the text for a cause in a protocol's table, which has one for Unavailable.
func textFor(table []string, c Cause) string {
	if int(c) >= len(table) || table[c] == "" {
		c = Unavailable
	}
	return table[c]
}
