/** Network namespaces for tests, made and deleted with `ip netns`. Not for the product, which starts no such program. */
import { execFileSync } from 'node:child_process';
import type { NetnsPath } from '../netns.ts';

let made = 0;

/** An empty namespace with `lo`, down, that is deleted when disposed. */
export class ScratchNetns implements Disposable {
  readonly name: string;
  readonly path: NetnsPath;

  constructor() {
    this.name = `tulle-test-${process.pid}-${made++}`;
    this.path = `/run/netns/${this.name}`;
    execFileSync('ip', ['netns', 'add', this.name]);
  }

  /** Runs a program inside and gives its standard output. @throws if it fails, with what it said */
  run(program: string, ...args: readonly string[]): string {
    return execFileSync('ip', ['netns', 'exec', this.name, program, ...args], { encoding: 'utf8' });
  }

  /** Like {@link run}, for a program that prints JSON (`ip -j …`). Nothing printed is an empty list. */
  json<T>(program: string, ...args: readonly string[]): T {
    return JSON.parse(this.run(program, ...args).trim() || '[]') as T;
  }

  [Symbol.dispose](): void {
    execFileSync('ip', ['netns', 'delete', this.name]);
  }
}
