/** Puts the policy feature together: caches, rules, cutting of connections, logs, figures. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import type { Node } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import { apiVersionOf } from '#api/kind.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import { CLUSTER_NETWORK_POLICY } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { indexCache, startCache } from '#client/cache.ts';
import { createEventRecorder } from '#client/events.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import { explainError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import { NFLOG_GROUP, NFT_TABLE } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { OpenNflog } from '#linux/nflog/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { CompiledPolicy } from '#policy/model.ts';
import type { AnswerWatch } from '../answer-watch.ts';
import type { Attachment, Attachments } from '../attachment.ts';
import type { Ruleset } from '../ruleset.ts';
import { Cutter } from './cutter.ts';
import { describePacket, indexByHash, type LogContext, PolicyLog } from './log.ts';
import { readRuleCounts, registerPolicyMetrics } from './metrics.ts';
import { Policy, type PolicyInit, type PolicyStatus } from './policy.ts';
import { rehearse } from './rehearse.ts';
import { PolicyReports } from './reports.ts';
import { UsageReport } from './usage.ts';

export interface PolicyFeatureComponents {
  readonly client: ApiClient;
  readonly rulesets: readonly Ruleset[];
  readonly nftables: Nftables;
  readonly nodes: Cache<Node>;
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  readonly conntrack: Conntrack;
  readonly openNflog: OpenNflog;
  /** All addresses of this machine. */
  readonly ownAddresses: () => ReadonlySet<Ip>;
  readonly registry: Registry;
  /** DNS must not answer from its cache for the names that are wanted now. */
  readonly onNewDomains: () => void;
  readonly log: Logger;
}

export interface PolicyFeature extends AsyncDisposable {
  /** For the CNI feature: a new pod's policies, before its link is made. */
  prepare(attachment: Attachment): Promise<void>;
  /** Resolves when the policies are in the kernel for what is attached. */
  start(attachments: Attachments): Promise<void>;
  status(): PolicyStatus;
  /** To be told of DNS answers before pods have them. */
  readonly answers: AnswerWatch;
  /**
   * `/policy/log`: records as JSON lines; with `?follow` it goes on. `/policy/rules`: how often each decided.
   * `/policy/domains`: which addresses pods were told for the names that policies mean.
   */
  readonly routes: Readonly<
    Record<string, (request: IncomingMessage, response: ServerResponse) => void>
  >;
}

export async function createPolicyFeature(
  components: PolicyFeatureComponents,
  init: PolicyInit & { readonly nodeName: string },
): Promise<PolicyFeature> {
  const { client, log, nftables } = components;
  await using parts = new AsyncDisposableStack();
  const clusterPolicies = (await hasClusterPolicies(client, log))
    ? parts.use(startCache(client, CLUSTER_NETWORK_POLICY, { log }))
    : undefined;
  const networkPolicies = parts.use(startCache(client, NETWORK_POLICY, { log }));
  const reports = parts.use(
    new PolicyReports(
      {
        ...{ client, log },
        events: parts.use(
          createEventRecorder(client, { component: 'tulle-agent', host: init.nodeName, log }),
        ),
        isUsed: (id) => policy.planner.isUsed(id),
        objectOf(id) {
          const [kind, key = ''] = id.split(' ');
          const object =
            kind === 'NetworkPolicy' ? networkPolicies.get(key) : clusterPolicies?.get(key);
          // Items of a list may come without their kind.
          return object === undefined ? undefined : { ...object, ...kindOf(kind) };
        },
      },
      { node: init.nodeName },
    ),
  );
  let cutter: Cutter | undefined;
  const policy = parts.use(
    new Policy(
      {
        ...components,
        pods: parts.use(startCache(client, POD, { log })),
        namespaces: parts.use(startCache(client, NAMESPACE, { log })),
        networkPolicies,
        clusterPolicies,
        onProgrammed: () => cutter?.trigger(),
        onState: (id, state) => reports.set(id, state),
      },
      init,
    ),
  );
  const { planner } = policy;
  const cuts = parts.use(
    new Cutter({
      conntrack: components.conntrack,
      log,
      context: () => ({
        ownAddresses: components.ownAddresses(),
        directory: planner.directory,
        localAt: (address) => policy.localAt(address),
        policiesFor: (pod) => planner.policiesFor(pod.namespace),
        // A connection outlives the answer by which it began.
        resolved: (pattern) => policy.domains.memory.everResolved(pattern),
      }),
    }),
  );
  const records = new PolicyLog();
  listenForPackets(parts, records, components, logContext(policy, components));
  const counts = () => readRuleCounts(nftables, NFT_TABLE);
  registerPolicyMetrics(components.registry, {
    policy,
    counts,
    cuts: () => cuts.cutCount,
    suppressed: () => records.suppressed,
  });
  parts.use(
    new UsageReport(
      {
        ...{ client, log },
        counts: () => (planner.policyCount === 0 ? Promise.resolve([]) : counts()),
        node: () => components.nodes.get(init.nodeName),
      },
      { node: init.nodeName },
    ),
  );
  const kept = parts.move();
  return {
    prepare: (attachment) => policy.prepare(attachment),
    async start(attachments) {
      await policy.start(attachments);
      cutter = cuts;
      cuts.trigger();
      try {
        rehearse(planner.policies);
      } catch (error) {
        // The policy at fault is found, and told of, when it is programmed.
        log.debug({ reason: explainError(error) }, 'policy: the rehearsal of policies failed');
      }
    },
    answers: policy.domains,
    status() {
      const status = policy.status();
      const problems = [...status.problems, ...(cuts.problem === undefined ? [] : [cuts.problem])];
      return { ...status, problems };
    },
    routes: {
      '/policy/log': (request, response) => streamLog(records, request, response),
      '/policy/rules': (_, response) => {
        counts().then(
          (all) => sendJson(response, all),
          (error: unknown) => response.writeHead(500).end(`${explainError(error)}\n`),
        );
      },
      '/policy/domains': (_, response) => sendJson(response, [...policy.domains.memory.states()]),
    },
    [Symbol.asyncDispose]: () => kept[Symbol.asyncDispose](),
  };
}

function kindOf(kind: string | undefined): { kind: string; apiVersion: string } {
  const definition = kind === 'NetworkPolicy' ? NETWORK_POLICY : CLUSTER_NETWORK_POLICY;
  return { kind: definition.kind, apiVersion: apiVersionOf(definition) };
}

/** A Kubernetes without the kind answers 404 for its group; then there is nothing to watch. */
async function hasClusterPolicies(client: ApiClient, log: Logger): Promise<boolean> {
  const path = `/apis/${apiVersionOf(CLUSTER_NETWORK_POLICY)}`;
  try {
    const { status } = await client.raw('GET', path);
    if (status !== 404) return true;
  } catch (error) {
    // Not known: then it is watched, and the pods stay as they are until it can be.
    log.warn({ reason: explainError(error) }, `policy: cannot ask the API for ${path}`);
    return true;
  }
  log.info(
    {},
    'policy: this API has no ClusterNetworkPolicy; restart the agent after installing it',
  );
  return false;
}

function logContext(policy: Policy, { services, slices }: PolicyFeatureComponents): LogContext {
  const { planner } = policy;
  const byAddress = indexCache(slices, 'address', (slice) =>
    (slice.endpoints ?? []).flatMap((endpoint) => endpoint.addresses ?? []),
  );
  let hashed = new Map<string, CompiledPolicy>();
  return {
    nameOf(address) {
      const pod = policy.localAt(address) ?? planner.directory.podAt(address);
      if (pod !== undefined && !pod.hostNetwork) return `pod ${pod.namespace}/${pod.name}`;
      const node = planner.directory.nodeAt(address);
      return node === undefined ? undefined : `node ${node.name}`;
    },
    servicesOf: (address) =>
      [...byAddress.get(address)].flatMap((slice) => {
        const name = slice.metadata.labels?.[SERVICE_NAME_LABEL];
        const key = `${slice.metadata.namespace}/${name}`;
        return name !== undefined && services.get(key) !== undefined ? [key] : [];
      }),
    policyByHash(hash) {
      if (!hashed.has(hash)) hashed = indexByHash(planner.policies);
      return hashed.get(hash);
    },
    ruleSetByHash: (hash) => planner.ruleSetByHash(hash),
  };
}

function listenForPackets(
  parts: AsyncDisposableStack,
  records: PolicyLog,
  { openNflog, log }: PolicyFeatureComponents,
  context: LogContext,
): void {
  try {
    parts.use(
      openNflog({
        group: NFLOG_GROUP,
        onPacket: (packet) => {
          const now = Date.now();
          const record = describePacket(packet, context, now);
          if (record !== undefined) records.add(record, now);
        },
        onLost: () => {
          records.suppressed++;
        },
      }),
    );
  } catch (error) {
    // Enforcement does not need it.
    log.warn(
      { reason: explainError(error), group: NFLOG_GROUP },
      'policy: refused packets cannot be logged; does another program listen to the group?',
    );
  }
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(value)}\n`);
}

function streamLog(records: PolicyLog, request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  for (const record of records.recent) response.write(`${JSON.stringify(record)}\n`);
  if (!/[?&]follow\b/.test(request.url ?? '')) {
    response.end();
    return;
  }
  response.flushHeaders();
  const stop = records.follow((record) => {
    // A reader that does not read must not make us hold what it did not.
    if (!response.writableNeedDrain) response.write(`${JSON.stringify(record)}\n`);
  });
  response.on('close', stop);
}
