/**
 * Node's options for `tulle server` and `tulle agent`, beside what the program sets itself: V8 takes this one only when it
 * starts. The script `./tulle` gives the same.
 *
 * The young generation may grow to three times this many MB. With V8's own choice of 16 an idle server keeps 15 MB more,
 * and an agent of a large cluster 60 MB.
 */
export const DAEMON_NODE_FLAGS: readonly string[] = ['--max-semi-space-size=4'];
