/**
 * The service feature as a process of its own, to be killed: `node balancer-process.ts NETNS [MORE]`, MORE services that
 * nobody uses, with five endpoints each, beside what it is told of.
 *
 * Reads {@link News} as JSON lines. After each sync that may have taken something away it prints `{"done": ID}`: all
 * news up to that one are in the kernel. After each repair of what others changed it prints `{"repaired": true}`.
 */
import { createInterface } from 'node:readline';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { HandCache } from '#client/hand-cache.ts';
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
  // No API between: of 44,000 services its copies would take longer than all that is tested here.
  const services = new HandCache<Service>();
  const slices = new HandCache<EndpointSlice>();
  for (let i = 0; i < (options.more ?? 0); i++) {
    services.put(serviceOf(FIRST_MORE + i));
    slices.put(sliceOf(FIRST_MORE + i, MORE_ENDPOINTS));
  }
  services.sync();
  slices.sync();
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
    else if ('remove' in news) (news.remove === 'service' ? services : slices).remove(news.key);
    else if ('service' in news) services.put(news.service);
    else slices.put(news.slice);
    seen = news.id;
  };
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
