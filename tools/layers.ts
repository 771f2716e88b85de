/**
 * Checks the direction of imports (docs/ARCHITECTURE.md):
 * a file imports its own folder or a lower layer, and features of `node/` and `control/` do not import each other.
 *
 * usage: node tools/layers.ts      exits with 1 and a line per offence
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

/** A layer may import itself and these. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  wire: ['lib'],
  api: ['lib', 'wire'],
  policy: ['lib', 'api'],
  linux: ['lib', 'wire'],
  proc: ['lib'],
  store: ['lib', 'wire'],
  client: ['lib', 'api'],
  server: ['lib', 'api', 'store', 'client', 'proc'],
  control: ['lib', 'api', 'client', 'store'],
  node: ['lib', 'wire', 'api', 'policy', 'client', 'linux', 'proc'],
  lab: ['lib', 'wire', 'api', 'client', 'linux', 'proc'],
  cli: ['lib', 'wire', 'api', 'policy', 'client', 'linux', 'lab', 'proc'],
  bin: [
    'lib',
    'api',
    'client',
    'linux',
    'store',
    'server',
    'control',
    'node',
    'lab',
    'cli',
    'proc',
  ],
};
/** In these layers each folder is a feature and sees only itself and the layer's own top-level files. */
const FEATURE_LAYERS = ['node', 'control'];

const root = resolve(import.meta.dirname, '../src');
const offences: string[] = [];

for (const file of typescriptFiles(root)) {
  const [layer = '', ...rest] = relative(root, file).split('/');
  const feature = rest.length > 1 ? rest[0] : undefined;
  const allowed = MAY_IMPORT[layer];
  if (allowed === undefined) {
    offences.push(
      `src/${relative(root, file)}: "${layer}" is no layer; see MAY_IMPORT in tools/layers.ts`,
    );
    continue;
  }
  for (const specifier of importsOf(readFileSync(file, 'utf8'))) {
    const target = targetOf(specifier, file);
    if (target === undefined) continue;
    const where = `src/${relative(root, file)}: import '${specifier}'`;
    if (target.layer !== layer) {
      if (!allowed.includes(target.layer))
        offences.push(
          `${where}: layer "${layer}" may import ${allowed.join(', ') || 'nothing'}, not "${target.layer}"`,
        );
      else if (specifier.startsWith('.'))
        offences.push(`${where}: another layer is spelled '#${target.layer}/…'`);
    } else if (
      FEATURE_LAYERS.includes(layer) &&
      feature !== undefined &&
      target.feature !== undefined &&
      target.feature !== feature
    ) {
      offences.push(`${where}: feature "${feature}" may not import feature "${target.feature}"`);
    }
  }
}

for (const offence of offences) console.error(offence);
if (offences.length > 0) process.exit(1);

function typescriptFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return typescriptFiles(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

function importsOf(source: string): string[] {
  const pattern =
    /(?:^|\n)\s*(?:import|export)\s[^'";]*?from\s+'([^']+)'|import\(\s*'([^']+)'\s*\)|(?:^|\n)import\s+'([^']+)'/g;
  return [...source.matchAll(pattern)].map((match) => match[1] ?? match[2] ?? match[3] ?? '');
}

function targetOf(
  specifier: string,
  file: string,
): { layer: string; feature: string | undefined } | undefined {
  let path: string;
  if (specifier.startsWith('#')) path = specifier.slice(1);
  else if (specifier.startsWith('.')) path = relative(root, resolve(dirname(file), specifier));
  else return undefined;
  const [layer = '', ...rest] = path.split('/');
  return { layer, feature: rest.length > 1 ? rest[0] : undefined };
}
