package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func steerCommand(o *options, w *output) *cobra.Command {
	return &cobra.Command{Use: "steer", Args: cobra.NoArgs,
		Short: "Send at the rates that are read, one a line, \"pause\" for none; each that ends is printed as JSON in a line",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := openRig(cmd.Context(), o, w)
			if err != nil {
				return err
			}
			defer r.close()
			return r.steer(cmd.Context(), lines(cmd.InOrStdin()))
		}}
}

// lines reads lines until the end, for which it closes the channel.
func lines(in io.Reader) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(in); s.Scan(); {
			out <- strings.TrimSpace(s.Text())
		}
	}()
	return out
}

// steer sends at each rate until the next one comes. The end of the orders, or of ctx, ends the last one.
func (r *rig) steer(ctx context.Context, orders <-chan string) error {
	var current *begun
	for {
		order, more := "", false
		select {
		case order, more = <-orders:
		case <-ctx.Done():
		}
		if current != nil {
			if err := json.NewEncoder(r.out.out).Encode(r.finish(ctx, *current)); err != nil {
				return fmt.Errorf("print a trial: %w", err)
			}
			current = nil
		}
		if !more {
			return nil
		}
		if order == "pause" {
			continue
		}
		pps, err := r.rate(order)
		if err != nil {
			return err
		}
		b := r.begin(pps, 0)
		current = &b
	}
}
