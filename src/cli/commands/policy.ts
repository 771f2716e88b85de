/** `tulle policy explain|check|matrix|diff|rules|log` */
import { request } from 'node:http';
import { POLICY_USAGE, type PolicyUsage } from '#api/tulle/v1alpha1/policy-usage.ts';
import { isNotFound, UserError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { describeFlow, explainVerdict } from '#policy/describe.ts';
import { drawMatrix, MATRIX_FORMATS, type MatrixFormat } from '#policy/draw.ts';
import { endOfPod, parseEnds, parsePort } from '#policy/ends.ts';
import { evaluate, type Flow } from '#policy/evaluate.ts';
import { lint } from '#policy/lint.ts';
import type { End } from '#policy/match.ts';
import { PROTOCOL_NUMBERS, type World } from '#policy/model.ts';
import { nameOf } from '#policy/picture.ts';
import { describeRanges, diffOf, matrixOf, reachable } from '#policy/reach.ts';
import { agentUrl } from '../agent-address.ts';
import { withDomains } from '../agent-domains.ts';
import { connect } from '../client.ts';
import { EXIT_USAGE } from '../output.ts';
import { formatRuleCounts, type RuleCount, sumUsages, usageNotes } from '../policy-rules.ts';
import { isServiceName, throughService } from '../policy-services.ts';
import { fromManifests, loadSource, type PolicySource } from '../policy-source.ts';
import type { CommandContext } from '../program.ts';

interface SourceFlags {
  readonly manifests?: string;
  readonly kubeconfig?: string;
}

/** Past this a person reads a summary, not each explanation. */
const MAX_EXPLAINED = 4;
/** Pairs that one command evaluates. */
const MAX_PAIRS = 250_000;

/** Exit status 1 if any of the flows is denied, so that scripts can ask. */
export async function policyExplain(
  from: string,
  to: string,
  flags: SourceFlags & { port?: string; staged?: boolean; agent: string },
  { print }: CommandContext,
): Promise<void> {
  const source = await loadSource(flags);
  const known =
    flags.manifests === undefined ? await withDomains(source.world, flags.agent) : source.world;
  const world = flags.staged === true ? enforceStaged(known) : known;
  const through = throughService(to, flags.port, { world, services: source.services });
  if (through !== undefined)
    print(`service ${through.service}: policy sees the pods behind it, and their own port`);
  const targets =
    through?.flows ?? parseEnds(to, world).map((end) => ({ to: end, port: flags.port }));
  const flows: Flow[] = sendersOf(from, world).flatMap((sender) =>
    targets.map(({ to: target, port: text }) => {
      const port =
        text === undefined
          ? { protocol: PROTOCOL_NUMBERS.TCP, port: undefined }
          : parsePort(text, target);
      return { ...sameFamily(sender, target), ...port };
    }),
  );
  limitPairs(flows.length);
  for (const flow of flows) {
    const verdict = evaluate(world, flow);
    if (!verdict.allowed) process.exitCode = 1;
    // Without a port in question the verdict is about all of them; which ones it is right for is worth a line.
    const some = flags.port === undefined ? somePorts(world, flow) : undefined;
    if (flows.length <= MAX_EXPLAINED) {
      for (const line of explainVerdict(world, flow, verdict)) print(line);
      if (some !== undefined) print(`  allowed on ${some}; ask with --port to know why`);
    } else
      print(
        `${describeFlow(flow)}: ${verdict.allowed ? 'ALLOWED' : 'DENIED'}${some === undefined ? '' : `, allowed on ${some}`}`,
      );
  }
}

/** @throws UserError for what begins no connections */
function sendersOf(text: string, world: World): End[] {
  if (isServiceName(text, world))
    throw new UserError(`"${text}" cannot be where a flow begins: services only receive`, {
      hint: 'Give a pod behind it, or their labels.',
    });
  const ends = parseEnds(text, world);
  if (ends.some(({ domain }) => domain !== undefined))
    throw new UserError(`"${text}" cannot be where a flow begins: senders have no domain names`, {
      hint: 'Give one of its addresses.',
    });
  return ends;
}

function enforceStaged(world: World): World {
  return { ...world, policies: world.policies.map((policy) => ({ ...policy, staged: false })) };
}

/** @returns undefined if all ports of all protocols have the same verdict */
function somePorts(world: World, flow: Flow): string | undefined {
  const text = describeRanges(reachable(world, flow));
  return text === 'all' || text === 'none' ? undefined : text;
}

/** Addresses of one family, the other end's: what matters for prefixes. */
function sameFamily(from: End, to: End): { from: End; to: End } {
  const pick = (end: End, other: End): End => {
    const isV6 = other.ip?.includes(':') ?? false;
    const ips = end.pod?.ips ?? end.node?.ips ?? [];
    const fitting = ips.find((address) => address.includes(':') === isV6);
    return end.ip?.includes(':') === isV6 || fitting === undefined ? end : { ...end, ip: fitting };
  };
  return { from: pick(from, to), to };
}

/** Exit status 1 if anything was found. */
export async function policyCheck(flags: SourceFlags, { print }: CommandContext): Promise<void> {
  const source = await loadSource(flags);
  const lines = [
    ...source.mistakes,
    ...lint(source.world, source.policies).map(({ policy, field, message, code }) => ({
      place: source.placeOf(policy, field),
      text: `${policy}: ${field}: ${message} [${code}]`,
    })),
  ];
  for (const { place, text } of lines) print(place === undefined ? text : `${place}: ${text}`);
  print(
    lines.length === 0
      ? `${source.policies.length} policies, nothing to say.`
      : `${lines.length} found.`,
  );
  if (lines.length > 0) process.exitCode = 1;
}

export async function policyMatrix(
  flags: SourceFlags & { namespace?: string; output: string },
  { print }: CommandContext,
): Promise<void> {
  const format = MATRIX_FORMATS.find((candidate) => candidate === flags.output);
  if (format === undefined)
    throw new UserError(`There is no output format "${flags.output}"`, {
      hint: `There are ${MATRIX_FORMATS.join(', ')}.`,
      exitCode: EXIT_USAGE,
    });
  const { world } = await loadSource(flags);
  const pods = podEnds(world, flags.namespace);
  if (pods.length === 0)
    throw new UserError(
      flags.namespace === undefined
        ? 'There are no pods'
        : `There is no pod in the namespace "${flags.namespace}"`,
      { hint: wherePodsAre(world) },
    );
  const ends = [...pods, OUTSIDE];
  limitPairs(ends.length ** 2);
  print(drawMatrix(ends, matrixOf(world, ends), format satisfies MatrixFormat));
}

const MAX_NAMES_SHOWN = 8;

function wherePodsAre(world: World): string {
  const names = [...new Set(podEnds(world, undefined).map(({ pod }) => pod?.namespace ?? ''))];
  if (names.length === 0)
    return 'Give manifests with pods, or workloads with a template for them, that are not on the network of their host.';
  const some = names.slice(0, MAX_NAMES_SHOWN).join(', ');
  return `Pods are in ${some}${names.length > MAX_NAMES_SHOWN ? ', …' : ''}.`;
}

/** An address that no pod, node or prefix in use has (RFC 5737): the rest of the world. */
const OUTSIDE: End = { pod: undefined, node: undefined, ip: ip('203.0.113.1') };

function podEnds(world: World, namespace: string | undefined): End[] {
  return [...world.pods.values()]
    .filter((pod) => !pod.hostNetwork && (namespace === undefined || pod.namespace === namespace))
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .map((pod) => endOfPod(pod, world));
}

/** Exit status 1 if anything changes. `A` and `B`: directories, or `live`. */
export async function policyDiff(
  a: string,
  b: string,
  flags: { kubeconfig?: string },
  { print }: CommandContext,
): Promise<void> {
  const load = (text: string): PolicySource | Promise<PolicySource> =>
    text === 'live' ? loadSource(flags) : fromManifests(text);
  const [before, after] = [await load(a), await load(b)];
  // Pods that only one of them knows: a directory of policies alone is compared over the other's pods.
  const pods = new Map([...before.world.pods, ...after.world.pods]);
  const namespaces = new Map([...before.world.namespaces, ...after.world.namespaces]);
  const nodes = new Map([...before.world.nodes, ...after.world.nodes]);
  const whole = ({ world }: PolicySource): World => ({
    ...{ pods: new Map([...pods, ...world.pods]) },
    namespaces: new Map([...namespaces, ...world.namespaces]),
    ...{ nodes, policies: world.policies },
  });
  const [old, now] = [whole(before), whole(after)];
  const ends = [...podEnds(now, undefined).map(({ pod }) => pod), undefined].map((pod) => {
    if (pod === undefined) return { before: OUTSIDE, after: OUTSIDE };
    return { before: endOfPod(old.pods.get(pod.key) ?? pod, old), after: endOfPod(pod, now) };
  });
  limitPairs(ends.length ** 2);
  const changes = diffOf(old, now, ends);
  for (const { from, to, opened, closed } of changes) {
    const pair = `${nameOf(from)} -> ${nameOf(to)}`;
    if (opened.length > 0) print(`+ ${pair}: ${describeRanges(opened)}`);
    if (closed.length > 0) print(`- ${pair}: ${describeRanges(closed)}`);
  }
  print(
    changes.length === 0
      ? 'No flow between pods is opened or closed.'
      : `${changes.length === 1 ? '1 pair changes' : `${changes.length} pairs change`}.`,
  );
  if (changes.length > 0) process.exitCode = 1;
}

function limitPairs(pairs: number): void {
  if (pairs > MAX_PAIRS)
    throw new UserError(`That is ${pairs} pairs; at most ${MAX_PAIRS} are worked out at once`, {
      hint: 'Choose fewer pods, with --namespace or labels.',
    });
}

/** The rules of this machine's agent, or of all machines, with their counters. */
export async function policyRules(
  flags: { agent: string; allNodes: boolean; output?: string; kubeconfig?: string },
  { print, signal }: CommandContext,
): Promise<void> {
  requireJson(flags.output, 'a table');
  const usages = flags.allNodes ? await usagesOfNodes(flags.kubeconfig) : undefined;
  const counts = usages === undefined ? await ownRules(flags.agent, signal) : sumUsages(usages);
  if (flags.output === 'json') {
    for (const count of counts) print(JSON.stringify(count));
    return;
  }
  for (const line of formatRuleCounts(counts)) print(line);
  for (const line of usages === undefined ? [] : usageNotes(usages)) print(line);
}

/** @param otherwise what there is without `-o` */
function requireJson(output: string | undefined, otherwise: string): void {
  if (output === undefined || output === 'json') return;
  throw new UserError(`There is no output format "${output}"`, {
    hint: `There is json; without -o it is ${otherwise}.`,
    exitCode: EXIT_USAGE,
  });
}

async function ownRules(agent: string, signal: AbortSignal): Promise<RuleCount[]> {
  const url = agentUrl(agent, '/policy/rules');
  try {
    const response = await fetch(url, { signal });
    if (!response.ok) throw new Error(`it answered with status ${response.status}`);
    return (await response.json()) as RuleCount[];
  } catch (cause) {
    throw new UserError(`Cannot read the rules of the agent at ${agent}`, {
      cause,
      hint: 'Run this on a node, give --agent ADDRESS:PORT, or --all-nodes for what all nodes have told the API.',
    });
  }
}

async function usagesOfNodes(kubeconfig: string | undefined): Promise<PolicyUsage[]> {
  await using client = connect(kubeconfig);
  try {
    return (await client.list(POLICY_USAGE)).items;
  } catch (cause) {
    if (!isNotFound(cause)) throw cause;
    throw new UserError('This API does not have the kind PolicyUsage, so no node can tell it', {
      cause,
      hint: 'Run this on each node without --all-nodes, or read the metric tulle_policy_rule_packets.',
    });
  }
}

interface LogEnd {
  readonly ip: string;
  readonly port?: number;
  readonly name?: string;
  readonly services: readonly string[];
}
interface LogRecord {
  readonly time: string;
  readonly verdict: string;
  readonly direction: string;
  readonly policies: readonly string[];
  readonly rule?: number;
  readonly protocol: string;
  readonly source: LogEnd;
  readonly destination: LogEnd;
  readonly icmpType?: number;
}

/** What this machine's agent has seen; with `follow` it goes on. */
export async function policyLog(
  flags: { follow?: boolean; agent: string; output?: string },
  { print, signal }: CommandContext,
): Promise<void> {
  requireJson(flags.output, 'a line of text for each packet');
  const url = agentUrl(flags.agent, `/policy/log${flags.follow === true ? '?follow' : ''}`);
  await new Promise<void>((resolve, reject) => {
    const asked = request(url, { signal }, (response) => {
      if (response.statusCode !== 200) {
        reject(
          new UserError(`The agent at ${flags.agent} answered with status ${response.statusCode}`),
        );
        return;
      }
      let rest = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines)
          print(flags.output === 'json' ? line : formatRecord(JSON.parse(line) as LogRecord));
      });
      response.on('end', resolve);
      response.on('error', reject);
    });
    asked.on('error', (cause) => {
      if (signal.aborted) resolve();
      else
        reject(
          new UserError(`Cannot read the log of the agent at ${flags.agent}`, {
            cause,
            hint: "The log is kept by each node's agent: run this on the node, or give --agent ADDRESS:PORT.",
          }),
        );
    });
    asked.end();
  });
}

const VERDICTS: Readonly<Record<string, string>> = {
  deny: 'DENIED',
  isolated: 'DENIED',
  closed: 'CLOSED',
  accept: 'ALLOWED',
  staged: 'WOULD DENY',
};

/** @internal exported for its test */
export function formatRecord(record: LogRecord): string {
  const end = ({ ip: address, port, name, services }: LogEnd) => {
    const host = address.includes(':') ? `[${address}]` : address;
    const where = port === undefined ? address : `${host}:${port}`;
    const service = services.length > 0 ? `, service ${services.join(' ')}` : '';
    return name === undefined ? where : `${name.replace(/^pod /, '')} (${where}${service})`;
  };
  const what =
    record.icmpType === undefined ? record.protocol : `${record.protocol} type ${record.icmpType}`;
  const rule = record.rule === undefined ? '' : ` ${record.direction}[${record.rule}]`;
  const why =
    record.verdict === 'closed'
      ? 'the policy of the pod is not known yet, or the kernel refuses it'
      : record.verdict === 'isolated'
        ? `isolated by ${record.policies.join(', ') || 'a policy that is gone'}, no rule allows it`
        : `${record.policies.join(', ') || 'a policy that is gone'}${rule}`;
  return `${record.time} ${VERDICTS[record.verdict] ?? record.verdict} ${record.direction} ${what} ${end(record.source)} -> ${end(record.destination)}: ${why}`;
}
