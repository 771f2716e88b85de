/** What somebody reads whose configuration meets fields of others. The words are upstream's: kubectl explains them. */
import { ApiError } from '#lib/errors.ts';
import { pathsOf } from './field-set.ts';
import type { Manager } from './managers.ts';
import type { Conflict } from './ownership.ts';
import { formatPath } from './path-element.ts';

/** Causes that are listed: a person reads a few, a program knows by the first that there are some. */
const MAX_CAUSES = 100;

/** @param conflicts at least one */
export function conflictError(conflicts: readonly Conflict[]): ApiError {
  const causes = conflicts.flatMap(({ manager, fields }) =>
    pathsOf(fields).map((path) => ({
      reason: 'FieldManagerConflict',
      message: `conflict with ${describe(manager)}`,
      field: formatPath(path),
    })),
  );
  const texts = conflicts.map(({ manager, fields }) => {
    const paths = pathsOf(fields).map(formatPath);
    return paths.length === 1
      ? `conflict with ${describe(manager)}: ${paths[0]}`
      : `conflicts with ${describe(manager)}:\n${paths.map((path) => `- ${path}`).join('\n')}`;
  });
  const count = `${causes.length} conflict${causes.length === 1 ? '' : 's'}`;
  return new ApiError(409, 'Conflict', `Apply failed with ${count}: ${texts.join('\n')}`, {
    details: { causes: causes.slice(0, MAX_CAUSES) },
  });
}

function describe({ name, subresource, operation, apiVersion, time }: Manager): string {
  const place = subresource === '' ? '' : ` with subresource ${JSON.stringify(subresource)}`;
  const at = operation === 'Update' && time !== undefined ? ` at ${time}` : '';
  return `${JSON.stringify(name)}${place} using ${apiVersion}${at}`;
}
