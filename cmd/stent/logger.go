package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/stentproxy/stent/config"
)

// logger is the process's log; its level can change while it runs.
type logger struct {
	*zap.Logger

	level zap.AtomicLevel
}

// newLogger returns a log that writes to w in the format that c names: auto
// is text for a terminal and JSON for anything else.
func newLogger(c config.Log, w io.Writer) (*logger, error) {
	l := &logger{level: zap.NewAtomicLevel()}
	if err := l.setLevel(c); err != nil {
		return nil, err
	}
	var encoder zapcore.Encoder
	if c.Format == "console" || c.Format == "auto" && isTerminal(w) {
		console := zap.NewDevelopmentEncoderConfig()
		console.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		console.EncodeLevel = zapcore.CapitalColorLevelEncoder
		if !isTerminal(w) {
			console.EncodeLevel = zapcore.CapitalLevelEncoder
		}
		console.EncodeCaller = nil
		encoder = zapcore.NewConsoleEncoder(console)
	} else {
		json := zap.NewProductionEncoderConfig()
		json.TimeKey = "time"
		json.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		encoder = zapcore.NewJSONEncoder(json)
	}
	l.Logger = zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), l.level))
	return l, nil
}

// setLevel makes the log as chatty as c says.
func (l *logger) setLevel(c config.Log) error {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return fmt.Errorf("set the log level: %w", err)
	}
	l.level.SetLevel(level)
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
