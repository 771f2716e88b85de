/** A request for objects, with what serves it: what the handlers of the verbs share. */
import type { KindDefinition } from '#api/kind.ts';
import { badRequest } from '#api/machinery/status.ts';
import type { Clock } from '#lib/clock.ts';
import type { Store } from '#store/port.ts';
import type { Authorizer } from './authz.ts';
import { type Answer, type Exchange, headerOf, json } from './exchange.ts';
import type { WatchSlots } from './limits.ts';
import type { ServerMetrics } from './metrics.ts';
import { negotiateObject } from './negotiation.ts';
import { createPresenter, type Presenter } from './present.ts';
import type { ResourceRegistry, Target } from './registry/resource-registry.ts';
import type { ResourceRequest } from './request.ts';
import { asYaml } from './yaml.ts';

export interface ResourceHandlerOptions {
  readonly store: Store;
  /** @returns `undefined` if there is no such resource */
  readonly registryOf: (place: {
    group: string;
    version: string;
    resource: string;
  }) => ResourceRegistry | undefined;
  readonly clock: Clock;
  readonly metrics: ServerMetrics;
  readonly authorizer: Authorizer;
  readonly watchSlots: WatchSlots;
  /** A number in [0, 1). */
  readonly random: () => number;
}

export type ResourceExchange = Exchange<ResourceRequest>;

export interface Call {
  readonly exchange: ResourceExchange;
  readonly info: ResourceRequest;
  readonly kind: KindDefinition;
  readonly registry: ResourceRegistry;
  readonly target: Target;
  readonly options: ResourceHandlerOptions;
}

/** How the client wants to see objects. @throws ApiError 406 */
export function presenterOf({ exchange, kind, info, options }: Call): Presenter {
  const form = negotiateObject(headerOf(exchange.headers, 'accept'));
  return createPresenter(kind, form, {
    includeObject: info.query.get('includeObject') ?? 'Metadata',
    nowMs: () => options.clock.now(),
  });
}

/** An answer in the encoding the client wants. */
export function show(
  { exchange }: Call,
  status: number,
  body: unknown,
  warnings: readonly string[] = [],
): Answer {
  const { encoding } = negotiateObject(headerOf(exchange.headers, 'accept'));
  return encoding === 'yaml' ? asYaml(status, body) : json(status, body, warnings);
}

/** A parameter that is a whole number. @returns `undefined` if it is missing or empty @throws ApiError 400 */
export function integerOf(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  const value = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value))
    throw badRequest(`the parameter ${name}=${text} must be a whole number`);
  return value;
}
