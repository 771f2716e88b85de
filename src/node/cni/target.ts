/** From a CNI call to what is wanted: which attachment, for which pod, with which addresses and MAC. Pure. */
import { familyOf, type Ip, type Mac, parseIp, parseMac } from '#lib/ip.ts';
import type { IpRange } from '#lib/ip-range.ts';
import type { BridgeOptions } from '#wire/cni/bridge-options.ts';
import type { CniConfig } from '#wire/cni/config.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import { parseIpRanges } from '#wire/cni/ip-ranges.ts';
import type { CniRequest } from '#wire/cni/request.ts';
import type { Attachment, AttachmentPod } from '../attachment.ts';
import { vlanGatewayName } from './bridge-vlans.ts';
import { handleOf, hostLinkName, podMac } from './plan.ts';

export type AddRequest = Extract<CniRequest, { command: 'ADD' | 'CHECK' }>;

/** The record's file is named by the handle, and a file name has 255 bytes. */
const MAX_HANDLE_LENGTH = 240;

export interface Wanted {
  readonly attachment: Attachment;
  /** Empty: any address of each family. */
  readonly requested: readonly Ip[];
  /** Of these only; empty: of any pool. */
  readonly ranges: readonly IpRange[];
}

/**
 * @param facts what the call does not say
 * @throws CniError 4 or 7 for an address or a MAC that is none
 */
export function wantedOf(
  request: AddRequest,
  facts: { readonly mtuBytes: number; readonly nowMs: number; readonly isBesideKubelet: boolean },
): Wanted {
  const { config, containerId, ifName, args } = request;
  const handle = handleOf(config.name, containerId, ifName);
  if (handle.length > MAX_HANDLE_LENGTH)
    throw new CniError(CNI_ERROR.invalidEnvironment, 'CNI_CONTAINERID is too long', {
      details: `network name, container id and interface name together have ${handle.length} characters, at most ${MAX_HANDLE_LENGTH} are possible`,
    });
  return {
    requested: requestedIps(request),
    // An address plugin reads them itself.
    ranges: config.ipamType === undefined ? parseIpRanges(config.runtime.ipRanges) : [],
    attachment: {
      handle,
      network: config.name,
      containerId,
      ifName,
      netns: request.netns,
      hostLink: hostLinkName(containerId, ifName),
      mac: requestedMac(request) ?? podMac(handle),
      mtuBytes: facts.mtuBytes,
      addresses: [],
      pod: podOf(args, containerId, facts.isBesideKubelet),
      ...extrasOf(config),
      ...bridgeOf(request),
      createdAt: new Date(facts.nowMs).toISOString(),
    },
  };
}

/** What most pods do not ask for. */
function extrasOf({
  runtime,
  bandwidth: configured,
}: CniConfig): Pick<Attachment, 'portMappings' | 'bandwidth' | 'aliases' | 'dns'> {
  // As with the reference plugin, an administrator's limit is not the runtime's to lift.
  const bandwidth = configured ?? runtime.bandwidth;
  return {
    ...(runtime.portMappings.length > 0 ? { portMappings: runtime.portMappings } : {}),
    ...(bandwidth === undefined ? {} : { bandwidth }),
    ...(runtime.aliases.length > 0 ? { aliases: runtime.aliases } : {}),
    ...(runtime.dns === undefined ? {} : { dns: runtime.dns }),
  };
}

/** How the configuration wants a bridge, with the address plugin to ask. */
function bridgeOf({ config, path, args }: AddRequest): Pick<Attachment, 'bridge'> {
  const { mode, ipamType, json } = config;
  // Behind another plugin there is nothing to make.
  if (mode.kind !== 'bridge' || config.prevResult !== undefined) {
    if (ipamType !== undefined && config.prevResult === undefined)
      throw new CniError(
        CNI_ERROR.unsupportedField,
        `unsupported field "ipam.type" with value "${ipamType}"`,
        {
          details:
            'mode "routed" takes its addresses from IPPools; mode "bridge" asks address plugins',
        },
      );
    return {};
  }
  const { options } = mode;
  if (options.disableContainerInterface && ipamType !== undefined)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      'cannot use IPAM when DisableContainerInterface flag is set',
    );
  const fromPools =
    ipamType === undefined && !config.withoutIpam && !options.disableContainerInterface;
  const { vlans } = options;
  if (fromPools && vlans?.id === 0 && !vlans.preserveDefault)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      'the container would have addresses of IPPools and no VLAN to reach their gateway by',
      {
        details:
          'what it sends without a tag is of no VLAN: set "vlan", keep the default one ("preserveDefaultVlan": true), or take no addresses ("ipam": {})',
      },
    );
  vlanGatewayName(fromPools ? poolOptions(options) : options); // before anything is made
  const ipam =
    ipamType === undefined
      ? undefined
      : {
          type: ipamType,
          path,
          stdin: JSON.stringify(json),
          args: [...args].map(([name, value]) => `${name}=${value}`).join(';'),
        };
  return {
    bridge: {
      options: fromPools ? poolOptions(options) : options,
      ...(fromPools ? { fromPools } : {}),
      ips: [],
      routes: [],
      dns: config.dns,
      ...(ipam === undefined ? {} : { ipam }),
    },
  };
}

/** Addresses of pools make the node the gateway; what of theirs leaves the pod networks is masqueraded as the pool says. */
function poolOptions(options: BridgeOptions): BridgeOptions {
  return { ...options, isGateway: true, isDefaultGateway: true, ipMasq: false };
}

/**
 * The pod that the runtime names: Kubernetes runtimes by several arguments, whoever tells them to make it, podman by
 * `K8S_POD_NAME` alone.
 */
function podOf(
  args: ReadonlyMap<string, string>,
  containerId: string,
  isBesideKubelet: boolean,
): AttachmentPod {
  const uid = args.get('K8S_POD_UID') ?? '';
  const isSandbox = (args.get('K8S_POD_INFRA_CONTAINER_ID') ?? '') !== '';
  const nonEmpty = (name: string, otherwise: string) => {
    const value = args.get(name) ?? '';
    return value === '' ? otherwise : value;
  };
  return {
    namespace: nonEmpty('K8S_POD_NAMESPACE', 'default'),
    name: nonEmpty('K8S_POD_NAME', containerId),
    ...(uid === '' ? {} : { uid }),
    kubelet: isSandbox && isBesideKubelet,
    ...(isSandbox ? { sandbox: true } : {}),
  };
}

/** The precedence of the conventions: CNI_ARGS, then `args.cni`, then the capability, which wins. */
function requestedIps({ args, config }: AddRequest): readonly Ip[] {
  const fromArgs = args.get('IP') ?? '';
  const sources: readonly (readonly string[])[] = [
    config.runtime.ips,
    config.argIps,
    fromArgs === '' ? [] : fromArgs.split(','),
  ];
  const texts = sources.find((it) => it.length > 0) ?? [];
  const ips = texts.map((text) => {
    const parsed = parseIp(text.split('/')[0] ?? '');
    if (parsed !== undefined) return parsed;
    throw new CniError(CNI_ERROR.invalidConfig, `requested address "${text}" is no IP address`);
  });
  for (const family of [4, 6])
    if (ips.filter((it) => familyOf(it) === family).length > 1)
      throw new CniError(
        CNI_ERROR.invalidConfig,
        `more than one IPv${family} address is requested: ${ips.join(', ')}`,
        { details: 'an interface has one address of each family' },
      );
  return ips;
}

/** The same precedence as for addresses. */
function requestedMac({ args, config }: AddRequest): Mac | undefined {
  const text = config.runtime.mac ?? config.argMac ?? args.get('MAC') ?? '';
  if (text === '') return undefined;
  const parsed = parseMac(text);
  if (parsed !== undefined && (Number.parseInt(parsed.slice(0, 2), 16) & 1) === 0) return parsed;
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `requested MAC "${text}" is ${parsed === undefined ? 'no MAC address' : 'a multicast address'}`,
  );
}
