/**
 * The service feature as a process of its own, to be killed: `node balancer-process.ts NETNS [MORE]`, MORE services that
 * nobody uses, with five endpoints each, beside what it is told of.
 *
 * Reads {@link News} as JSON lines. After each sync that may have taken something away it prints `{"done": ID}`: all
 * news up to that one are in the kernel. After each repair of what others changed it prints `{"repaired": true}`.
 */
import { createInterface } from 'node:readline';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { KubeObject } from '#api/meta.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import type { Cache } from '#client/port.ts';
import { cidr, ip } from '#lib/ip.ts';
import { type Logger, silentLogger } from '#lib/log.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { Poller } from '#linux/poller.ts';
import { Ruleset } from '../../ruleset.ts';
import { Connections } from '../connections.ts';
import { Services } from '../services.ts';
import { serviceOf, sliceOf } from './many-services.ts';

/** The first of those that nobody uses: their cluster IPs are no other's. */
const FIRST_MORE = 4096;
const MORE_ENDPOINTS = 5;

export type News = { readonly id: number } & (
  | { readonly service: Service }
  | { readonly slice: EndpointSlice }
  | { readonly remove: 'service' | 'slice'; readonly key: string }
  /** All that was told so far is what there is: the feature may start. */
  | { readonly start: true }
);

/** The feature as this process runs it, over an API in memory. */
export async function startBalancer(
  stack: AsyncDisposableStack,
  nftables: Nftables,
  options: {
    readonly netns?: string;
    readonly more?: number;
    readonly onDone?: (id: number) => void;
    readonly onRepaired?: () => void;
  } = {},
): Promise<(news: News) => Promise<void>> {
  // Only failures are told: a test is to show why it waits in vain.
  const error: Logger['error'] = (fields, message) => console.error(message, fields);
  const log: Logger = { ...silentLogger, error };
  const api = new FakeApi();
  for (let i = 0; i < (options.more ?? 0); i++) {
    api.put(SERVICE, serviceOf(FIRST_MORE + i));
    api.put(ENDPOINT_SLICE, sliceOf(FIRST_MORE + i, MORE_ENDPOINTS));
  }
  const services = stack.use(startCache(api, SERVICE, { log }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log }));
  await Promise.all([services.synced(), slices.synced()]);
  const rulesets = (['ip', 'ip6'] as const).map((family) =>
    stack.use(new Ruleset({ nftables, log }, { family, table: 'tulle', parts: [] })),
  );
  for (const ruleset of rulesets) ruleset.onRepaired(() => options.onRepaired?.());
  const connections =
    options.netns === undefined
      ? undefined
      : stack.use(
          new Connections({
            conntrack: stack.use(openConntrack({ netns: options.netns })),
            services: () => feature,
            ...{ rulesets, log },
          }),
        );
  let seen = 0;
  const feature: Services = stack.use(
    new Services(
      {
        ...{ rulesets, services, slices, log },
        onEndpointsLost: () => {
          options.onDone?.(seen);
          connections?.trigger();
        },
      },
      {
        node: { nodeName: 'm1', zone: undefined },
        skipAddresses: [],
        nodePortAddresses: () => [ip('192.0.2.1')],
        serviceNetworks: () => [cidr('10.96.0.0/16')],
      },
    ),
  );
  return async (news) => {
    if ('start' in news) await feature.start();
    else if ('remove' in news) {
      const isService = news.remove === 'service';
      api.remove(isService ? SERVICE : ENDPOINT_SLICE, news.key);
      const cache: Cache<KubeObject> = isService ? services : slices;
      while (cache.get(news.key) !== undefined) await turn();
    } else if ('service' in news) await cached(services, api.put(SERVICE, news.service));
    else await cached(slices, api.put(ENDPOINT_SLICE, news.slice));
    seen = news.id;
  };
}

/** Waits until the cache has the object. */
async function cached<T extends KubeObject>(cache: Cache<T>, { metadata }: T): Promise<void> {
  const key = `${metadata.namespace}/${metadata.name}`;
  while (cache.get(key)?.metadata.resourceVersion !== metadata.resourceVersion) await turn();
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

if (import.meta.main) {
  const [netns = '', more = '0'] = process.argv.slice(2);
  await using stack = new AsyncDisposableStack();
  const poller = stack.use(new Poller());
  const tell = await startBalancer(stack, stack.use(openNftables({ netns, poller })), {
    ...{ netns, more: Number(more) },
    onRepaired: () => process.stdout.write(`${JSON.stringify({ repaired: true })}\n`),
    onDone: (done) => process.stdout.write(`${JSON.stringify({ done })}\n`),
  });
  for await (const line of createInterface({ input: process.stdin }))
    await tell(JSON.parse(line) as News);
}
