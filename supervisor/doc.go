// Package supervisor runs everything that lives in stent as services of one
// suture tree, so that what fails is restarted, alone, and what ends is
// forgotten:
//
//	stent
//	├── listeners ── one service per address
//	├── control ──── config watcher, admin server, health checkers, event log
//	└── sessions
//	    ├── partition 0 ── worker, worker, …
//	    └── partition N
//
// A service is anything with Serve(ctx) error. What Serve returns decides:
//
//	suture.ErrDoNotRestart            it is done and forgotten
//	any other error, nil, or a panic  it failed and is served again
//	suture.ErrTerminateSupervisorTree the tree stops (listeners and control only)
//
// The listeners and the control services restart under suture's own
// intensity: more than five failures, halved every 30 s, pause the restarts
// of that branch for 15 s. A partition never pauses, since one client's
// failures must not delay a stranger's restart; each session keeps an
// [Intensity] instead and backs off at the head of its Serve.
//
// Suture reports on the supervisor's own loop, so nothing is done there but
// counting and offering the event to a bounded queue, which one service
// drains to the log. A session's failure is logged at debug, as its worker
// logs what it means; a panic always at error.
//
// The tree stops branch by branch: listeners, sessions, control. Each has
// StopTimeout; who takes longer is logged and named by [Tree.Serve]'s error.
package supervisor
