/** An earlier version of this program out of the repository's history, to upgrade from. */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { run, runOk } from '#proc/run.ts';

const ROOT = resolve(import.meta.dirname, '../..');
// The tests run as root in a checkout that may be somebody else's, which git refuses unless told.
const GIT = ['git', '-c', `safe.directory=${ROOT}`, '-C', ROOT];

/** @returns why there is no such version here, or undefined */
export async function whyNoVersion(commit: string): Promise<string | undefined> {
  const { exitCode, stderr } = await run([...GIT, 'cat-file', '-e', `${commit}^{commit}`]);
  if (exitCode === 0) return undefined;
  return `the history of the repository is not here, or not whole: ${stderr.trim()}`;
}

/**
 * Puts a version's files into a folder; it runs with the packages of this one.
 * @param folder is made
 * @returns the path of its program
 */
export async function extractVersion(commit: string, folder: string): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const archive = join(folder, 'former.tar');
  await runOk([...GIT, 'archive', '--output', archive, commit, 'package.json', 'src']);
  await runOk(['tar', '--extract', '--file', archive, '--directory', folder]);
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  return join(folder, 'src/bin/tulle.ts');
}
