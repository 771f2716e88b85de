/** Whether a change of an object concerns who reads its specification: a status that counts something changes all the time. */
import type { KubeObject } from '#api/meta.ts';
import type { CacheChange } from './port.ts';

/** True also for objects that are new or gone. */
export function isSpecChange<T extends KubeObject & { readonly spec: unknown }>({
  old,
  current,
}: Pick<CacheChange<T>, 'old' | 'current'>): boolean {
  if (old === undefined || current === undefined) return true;
  return (
    old.metadata.uid !== current.metadata.uid ||
    JSON.stringify(old.spec) !== JSON.stringify(current.spec)
  );
}
