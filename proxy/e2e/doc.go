// Package e2e runs clients and servers that nobody here wrote through a
// running stent, beside the same pair without it: the row through stent must
// equal the direct row but where the contract says otherwise.
//
// The tests run with STENT_E2E=1; what lacks its tool (Node, Python,
// mosquitto, Chromium) is skipped with the reason. STENT_E2E_VIA chooses the
// ways between client and server, of direct, tcp, relay, rules and terminate;
// "stent" stands for the last three.
package e2e
