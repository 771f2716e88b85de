/**
 * The keys of the reference plugin `bridge`, which mode `bridge` takes too
 * (https://www.cni.dev/plugins/current/main/bridge/).
 */
import { CNI_ERROR, CniError } from './error.ts';

export interface BridgeOptions {
  /** Name of the bridge. */
  readonly bridge: string;
  /** The bridge has the gateway's address. */
  readonly isGateway: boolean;
  /** The container's default route goes there. Implies `isGateway`. */
  readonly isDefaultGateway: boolean;
  /** Replaces another address that the bridge has. */
  readonly forceAddress: boolean;
  readonly ipMasq: boolean;
  readonly hairpinMode: boolean;
  readonly promiscMode: boolean;
  /** Containers reach the gateway and not each other. */
  readonly portIsolation: boolean;
  /** What the container sends must have its MAC and its addresses. */
  readonly macSpoofCheck: boolean;
  readonly disableContainerInterface: boolean;
  /** 0 leaves it to the agent. */
  readonly mtuBytes: number;
  /** Absent: none. */
  readonly vlans?: BridgeVlans;
}

export interface BridgeVlans {
  /** What the container sends and gets without a tag is of this VLAN; 0: none. */
  readonly id: number;
  /** VLANs that it sends and gets with tags. */
  readonly trunk: readonly { readonly from: number; readonly to: number }[];
  /** The port stays in VLAN 1 too. */
  readonly preserveDefault: boolean;
}

type Json = Readonly<Record<string, unknown>>;

const MAX_IF_NAME = 15;
/** `ETH_MAX_MTU` */
const MAX_MTU_BYTES = 65_535;
/** 4095 is reserved (IEEE 802.1Q). */
const MAX_VLAN_ID = 4094;

/** @throws CniError 6 for a wrong shape, 7 for values that do not go together, 2 for what cannot be had */
export function parseBridgeOptions(json: Json): BridgeOptions {
  const flag = (key: string, otherwise = false) => {
    const value = json[key] ?? otherwise;
    if (typeof value !== 'boolean') throw wrongType(key, 'true or false');
    return value;
  };
  const bridge = json.bridge ?? '';
  if (typeof bridge !== 'string') throw wrongType('bridge', 'a string');
  const mtuBytes = json.mtu ?? 0;
  if (typeof mtuBytes !== 'number') throw wrongType('mtu', 'a number');
  const isDefaultGateway = flag('isDefaultGateway');
  const options: BridgeOptions = {
    bridge: bridge === '' ? 'cni0' : bridge,
    isGateway: flag('isGateway') || isDefaultGateway,
    isDefaultGateway,
    forceAddress: flag('forceAddress'),
    ipMasq: flag('ipMasq'),
    hairpinMode: flag('hairpinMode'),
    promiscMode: flag('promiscMode'),
    portIsolation: flag('portIsolation'),
    macSpoofCheck: flag('macspoofchk', true),
    disableContainerInterface: flag('disableContainerInterface'),
    mtuBytes,
  };
  if (options.bridge.length > MAX_IF_NAME || /[/:\s]/.test(options.bridge))
    throw invalid(`"${options.bridge}" is no name for a bridge`);
  if (!Number.isInteger(mtuBytes) || mtuBytes < 0 || mtuBytes > MAX_MTU_BYTES)
    throw invalid(`invalid MTU ${mtuBytes}, must be [0, ${MAX_MTU_BYTES}]`);
  if (options.hairpinMode && options.promiscMode)
    throw invalid('cannot set hairpin mode and promiscuous mode at the same time');
  const vlans = parseVlans(json);
  return vlans === undefined ? options : { ...options, vlans };
}

function parseVlans(json: Json): BridgeVlans | undefined {
  const id = json.vlan ?? 0;
  if (!isVlanId(id) && id !== 0)
    throw invalid(`invalid VLAN ID ${id} (must be between 0 and ${MAX_VLAN_ID})`);
  const items = json.vlanTrunk ?? [];
  if (!Array.isArray(items)) throw wrongType('vlanTrunk', 'a list');
  const trunk = items.flatMap(parseTrunk);
  const preserveDefault = json.preserveDefaultVlan ?? true;
  if (typeof preserveDefault !== 'boolean') throw wrongType('preserveDefaultVlan', 'true or false');
  return id === 0 && trunk.length === 0 ? undefined : { id, trunk, preserveDefault };
}

/** With the reference plugin's words. */
function parseTrunk(item: unknown): BridgeVlans['trunk'] {
  if (typeof item !== 'object' || item === null)
    throw wrongType('vlanTrunk', 'a list of {minID, maxID} and {id}');
  const { minID, maxID, id } = item as Json;
  const both = 'minID and maxID should be configured simultaneously';
  const ranges: { from: number; to: number }[] = [];
  if (minID !== undefined || maxID !== undefined) {
    if (minID === undefined) throw invalid(`${both}, minID is missing`);
    if (maxID === undefined) throw invalid(`${both}, maxID is missing`);
    if (!isVlanId(minID)) throw invalid('incorrect trunk minID parameter');
    if (!isVlanId(maxID)) throw invalid('incorrect trunk maxID parameter');
    if (minID > maxID) throw invalid('minID is greater than maxID in trunk parameter');
    ranges.push({ from: minID, to: maxID });
  }
  if (id !== undefined) {
    if (!isVlanId(id)) throw invalid('incorrect trunk id parameter');
    ranges.push({ from: id, to: id });
  }
  return ranges;
}

function isVlanId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= MAX_VLAN_ID;
}

function wrongType(key: string, expected: string): CniError {
  return new CniError(CNI_ERROR.decode, `failed to decode network configuration: "${key}"`, {
    details: `"${key}" must be ${expected}`,
  });
}

function invalid(message: string): CniError {
  return new CniError(CNI_ERROR.invalidConfig, message);
}
