/** The real kubectl through a table of commands, against the real server: `kubectl-commands.ts`. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type ServerFixture, startServerFixture } from '#server/test-server.ts';
import { type Command, GROUPS, type Group } from './kubectl-commands.ts';
import { type Run, runKubectl, skip } from './kubectl-runner.ts';

const MAX_OUTPUT_BYTES = 4 * 1024 * 1024;

let fixture: ServerFixture;
let home: string;

before(async () => {
  if (skip !== false) return;
  home = mkdtempSync(join(tmpdir(), 'tulle-kubectl-table-'));
  fixture = await startServerFixture();
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  writeConfig('config', {
    'client-certificate-data': base64(fixture.admin.cert),
    'client-key-data': base64(fixture.admin.key),
  });
});

after(async () => {
  if (skip !== false) return;
  await fixture[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
});

test('the table has some 150 commands', () => {
  const count = GROUPS.reduce((sum, group) => sum + group.commands.length, 0);
  assert.ok(count >= 150, String(count));
});

for (const [index, group] of GROUPS.entries())
  test(`kubectl: ${group.name}`, { skip }, async (context) => {
    const namespace = `t${index}`;
    await kubectl(['create', 'namespace', namespace], 'config', {});
    for (const command of group.commands)
      await context.test(command.run, () => check(command, group, namespace));
  });

async function check(command: Command, group: Group, namespace: string): Promise<void> {
  const named = (text: string) => text.replaceAll('@', namespace);
  const config = command.as === undefined ? 'config' : await configOf(command.as, namespace);
  const args = [...words(named(command.run)), '-n', namespace];
  // What says its namespace itself wins: the last flag counts.
  const own = /-n \S+|--all-namespaces|-A/.test(command.run) ? args.slice(0, -2) : args;
  const { status, stdout, stderr } = await kubectl(own, config, {
    ...(command.stdin === undefined ? {} : { stdin: named(command.stdin) }),
    ...(command.env === undefined ? {} : { env: command.env }),
  });
  const said = `${group.name}: kubectl ${own.join(' ')}\n${stdout}${stderr}`;
  assert.equal(status, command.status ?? 0, said);
  const { expect } = command;
  if (typeof expect === 'string')
    assert.equal(stdout || stderrOf(expect, stderr), named(expect), said);
  else if (expect !== undefined)
    assert.match(stdout + stderr, new RegExp(named(expect.source), expect.flags), said);
}

/** kubectl says some plain answers ("No resources found") on standard error. */
function stderrOf(expect: string, stderr: string): string {
  return expect === '' ? '' : stderr.replace(/ in \S+ namespace\.\n$/, '\n');
}

/** A kubeconfig with a fresh token of a service account. */
async function configOf(account: string, namespace: string): Promise<string> {
  const name = `${namespace}-${account}`;
  const made = await kubectl(['create', 'token', account, '-n', namespace], 'config', {});
  assert.equal(made.status, 0, made.stderr);
  writeConfig(name, { token: made.stdout.trim() });
  return name;
}

function writeConfig(name: string, user: object): void {
  const { ca, server } = fixture;
  const authority = Buffer.from(ca.certificatePem).toString('base64');
  const cluster = { server: server.url, 'certificate-authority-data': authority };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'tulle', cluster }],
    users: [{ name: 'user', user }],
    contexts: [{ name: 'tulle', context: { cluster: 'tulle', user: 'user' } }],
    'current-context': 'tulle',
  };
  writeFileSync(join(home, name), JSON.stringify(config), { mode: 0o600 });
}

function kubectl(
  args: readonly string[],
  config: string,
  given: { stdin?: string; env?: Readonly<Record<string, string>> },
): Promise<Run> {
  return runKubectl(args, { home, config, maxOutputBytes: MAX_OUTPUT_BYTES, ...given });
}

/** Splits at blanks, but for what is quoted. */
function words(text: string): string[] {
  const found = text.match(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g) ?? [];
  return found.map((word) => word.replace(/^(["'])([\s\S]*)\1$/, '$2'));
}
