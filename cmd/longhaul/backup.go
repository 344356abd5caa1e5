package main

import (
	"context"
	"time"

	"longhaul/internal/backup"
)

// backupCmd saves everything.
type backupCmd struct {
	Dir string `arg:"" name:"dir" help:"Directory to save into; must not exist, or be empty."`
}

// Help is shown below the command's summary.
func (backupCmd) Help() string {
	return `It saves all streams with their consumers, while everything goes on. Every run that was acknowledged before it began is in it. docs/operations.md tells how to restore, and what that means for runs that were under way.

Example:

    longhaul backup /backups/2026-11-23`
}

// Run runs the command.
func (b *backupCmd) Run(ctx context.Context, a *app) error {
	js, err := a.jetStream()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	m, err := backup.Save(ctx, js, b.Dir, buildVersion().Version, a.showSaved)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(m)
	}
	a.out.printf("%s Saved into %s in %s.\n", a.out.green("✓"), b.Dir, short(m.Ended.Sub(m.Begun)))
	a.out.next("put it back on an empty broker", "longhaul restore "+shellWord(b.Dir))
	return nil
}

// showSaved tells of one stream.
func (a *app) showSaved(s backup.Saved) {
	if !a.JSON {
		a.out.printf("  %-14s %s, %s\n", s.Name, plural(int(s.Messages), "message"), byteSize(int(s.Bytes))) //nolint:gosec // a count of messages
	}
}

// restoreCmd puts a backup back.
type restoreCmd struct {
	Dir      string `arg:"" name:"dir" help:"Directory that longhaul backup has saved into."`
	Replicas int    `placeholder:"N" help:"Replicas of each stream: 1, 3 or 5 (default: as many as it had)."`
}

// Help is shown below the command's summary.
func (restoreCmd) Help() string {
	return `The broker must hold none of Longhaul's streams, and no service may run until it is done: nothing is overwritten. Start the services then, and run longhaul doctor --fix.

Example:

    longhaul restore /backups/2026-11-23`
}

// Run runs the command.
func (r *restoreCmd) Run(ctx context.Context, a *app) error {
	js, err := a.jetStream()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	m, err := backup.Restore(ctx, js, r.Dir, backup.Options{Replicas: r.Replicas}, a.showSaved)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(m)
	}
	a.out.printf("%s Restored what was acknowledged by %s.\n", a.out.green("✓"), m.Begun.Local().Format(time.DateTime))
	a.out.next("start the services, and mend at once what they would in minutes", "longhaul doctor --fix")
	return nil
}
