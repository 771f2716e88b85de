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
}

type Json = Readonly<Record<string, unknown>>;

const MAX_IF_NAME = 15;
/** `ETH_MAX_MTU` */
const MAX_MTU_BYTES = 65_535;

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
  checkVlans(json);
  return options;
}

function checkVlans(json: Json): void {
  const vlan = json.vlan ?? 0;
  if (typeof vlan !== 'number' || !Number.isInteger(vlan) || vlan < 0 || vlan > 4094)
    throw invalid(`invalid VLAN ID ${vlan} (must be between 0 and 4094)`);
  const trunk = json.vlanTrunk ?? [];
  if (!Array.isArray(trunk)) throw wrongType('vlanTrunk', 'a list');
  if (vlan !== 0 || trunk.length > 0)
    throw new CniError(
      CNI_ERROR.unsupportedField,
      `unsupported field "${vlan === 0 ? 'vlanTrunk' : 'vlan'}" with value ${JSON.stringify(vlan === 0 ? trunk : vlan)}`,
      { details: 'VLANs on a bridge are not supported; use a bridge for each network' },
    );
}

function wrongType(key: string, expected: string): CniError {
  return new CniError(CNI_ERROR.decode, `failed to decode network configuration: "${key}"`, {
    details: `"${key}" must be ${expected}`,
  });
}

function invalid(message: string): CniError {
  return new CniError(CNI_ERROR.invalidConfig, message);
}
