/** Pools of pod addresses: none overlaps another or the services' addresses, and none goes while blocks of it are held. */

import { forbidden } from '#api/machinery/status.ts';
import type { KubeObject } from '#api/meta.ts';
import { IP_BLOCK, type IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { type Cidr, cidrsOverlap, parseCidr } from '#lib/ip.ts';
import type { StoreReader } from '#store/port.ts';
import { qualifiedResource } from '../errors.ts';
import { decodeEntry } from '../registry/codec.ts';
import { collectionPrefix, objectKey, POOL_SET_GUARD, poolBlocksGuard } from '../registry/keys.ts';
import type { AdmissionEffects, AdmissionPlugin, AdmissionReview } from './admission.ts';

/** Blocks named in a message; the count says the rest. */
const MAX_NAMED_BLOCKS = 3;
const NOTHING = new Uint8Array();

/** @param options.serviceCidrs ranges that no pool may touch */
export function createIpPools(options: {
  serviceCidrs: (store: StoreReader) => Promise<readonly Cidr[]>;
}): AdmissionPlugin {
  return {
    name: 'IPPools',
    async review(review) {
      if (review.subresource !== '') return undefined;
      switch (`${review.operation} ${qualifiedResource(review.kind)}`) {
        case 'CREATE ippools.tulle.dev':
          return await reviewNewPool(review, review.object as KubeObject, options);
        case 'DELETE ippools.tulle.dev':
          return await reviewDelete(review);
        case 'REMOVE ippools.tulle.dev':
          return { operations: [{ type: 'delete', key: poolBlocksGuard(review.name) }] };
        case 'CREATE ipblocks.tulle.dev':
          return await reviewNewBlock(review, review.object as KubeObject);
        default:
          return undefined;
      }
    },
  };
}

async function reviewNewPool(
  { store }: AdmissionReview,
  object: KubeObject,
  options: { serviceCidrs: (store: StoreReader) => Promise<readonly Cidr[]> },
): Promise<AdmissionEffects | undefined> {
  const cidr = parseCidr((object as IPPool).spec?.cidr ?? '');
  if (cidr === undefined) return undefined; // the kind's validation says so
  const guard = await store.get(POOL_SET_GUARD);
  const overlap = (other: Cidr, whose: string): AdmissionEffects => ({
    errors: [
      {
        type: 'Invalid',
        field: 'spec.cidr',
        value: cidr,
        detail: `pool "${object.metadata.name}" (${cidr}) overlaps ${whose} (${other}); choose a range that is used nowhere else`,
      },
    ],
  });
  for (const range of await options.serviceCidrs(store))
    if (cidrsOverlap(range, cidr)) return overlap(range, 'the service range');
  for (const entry of (await store.list(collectionPrefix(IP_POOL))).entries) {
    const pool = decodeEntry(entry) as IPPool;
    const taken = parseCidr(pool.spec.cidr);
    if (
      taken !== undefined &&
      pool.metadata.name !== object.metadata.name &&
      cidrsOverlap(taken, cidr)
    )
      return overlap(taken, `pool "${pool.metadata.name}"`);
  }
  return {
    compares: [{ key: POOL_SET_GUARD, modRevision: guard?.modRevision ?? 0 }],
    operations: [{ type: 'put', key: POOL_SET_GUARD, value: NOTHING }],
  };
}

async function reviewDelete({ store, kind, name }: AdmissionReview): Promise<AdmissionEffects> {
  // The guard is read before the blocks: a block that comes later changes it, and the transaction fails.
  const key = poolBlocksGuard(name);
  const guard = await store.get(key);
  const held = (await store.list(collectionPrefix(IP_BLOCK))).entries
    .map((entry) => decodeEntry(entry) as IPBlock)
    .filter((block) => block.spec.pool === name);
  if (held.length > 0) {
    const named = held
      .slice(0, MAX_NAMED_BLOCKS)
      .map(({ spec }) => `${spec.cidr}${spec.node === '' ? '' : ` on node "${spec.node}"`}`);
    throw forbidden(
      kind,
      name,
      `${held.length} block(s) of this pool are in use (${named.join(', ')}${held.length > named.length ? ', …' : ''}); set spec.disabled to true, and delete the pool when its pods are gone`,
    );
  }
  return { compares: [{ key, modRevision: guard?.modRevision ?? 0 }] };
}

async function reviewNewBlock(
  { store, kind, name }: AdmissionReview,
  object: KubeObject,
): Promise<AdmissionEffects> {
  const pool = (object as IPBlock).spec?.pool ?? '';
  const entry = await store.get(objectKey(IP_POOL, '', pool));
  if (entry === undefined) throw forbidden(kind, name, `its pool "${pool}" does not exist`);
  if (decodeEntry(entry).metadata.deletionTimestamp !== undefined)
    throw forbidden(kind, name, `its pool "${pool}" is being deleted`);
  const guard = poolBlocksGuard(pool);
  return {
    compares: [{ key: entry.key, modRevision: entry.modRevision }],
    operations: [{ type: 'put', key: guard, value: NOTHING }],
  };
}
