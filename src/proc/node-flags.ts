/**
 * Node's options for `tulle server`, beside what the program sets itself: V8 takes this one only when it starts. The
 * script `./tulle` gives the same.
 *
 * The young generation may grow to three times this many MB; V8's own choice of 16 keeps 15 MB more in an idle server.
 */
export const SERVER_NODE_FLAGS: readonly string[] = ['--max-semi-space-size=4'];
