/**
 * `node:http` without what an `import` of it costs: that reads every export at once, among them the browser's WebSocket,
 * and so loads all of Node's fetch, some megabytes that our daemons never use.
 */
import type * as http from 'node:http';

export const nodeHttp: typeof http = process.getBuiltinModule('node:http');
