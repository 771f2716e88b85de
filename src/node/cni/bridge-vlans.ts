/**
 * VLANs on a bridge, as the reference plugin has them: a port is of one VLAN without tags (`vlan`), of several with tags
 * (`vlanTrunk`), or both. The gateway of a VLAN is an interface `<bridge>.<vlan>` on a port of its own.
 */
import { ENOENT, EOPNOTSUPP, isErrno } from '#lib/errors.ts';
import type { Link, NetworkStack } from '#linux/network/port.ts';
import type { BridgeOptions } from '#wire/cni/bridge-options.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { BridgeVlan } from '#wire/rtnetlink/bridge-vlan.ts';
import { hostLinkName } from './plan.ts';

/** What every new port of a bridge is of. */
const DEFAULT_VLAN = 1;
const MAX_IF_NAME = 15;

export interface VlanPlan {
  readonly removeDefault: boolean;
  readonly add: readonly BridgeVlan[];
}

/** What a port needs. Pure. @returns undefined without VLANs */
export function planPortVlans(options: Pick<BridgeOptions, 'vlans'>): VlanPlan | undefined {
  const { vlans } = options;
  if (vlans === undefined) return undefined;
  const { id, trunk, preserveDefault } = vlans;
  return {
    removeDefault: !preserveDefault,
    add: [...trunk, ...(id === 0 ? [] : [{ from: id, to: id, pvid: true, untagged: true }])],
  };
}

/** Name of the gateway's interface; undefined if it is the bridge itself. @throws CniError 7 if it is too long */
export function vlanGatewayName({ bridge, vlans, isGateway }: BridgeOptions): string | undefined {
  if (!isGateway || vlans === undefined || vlans.id === 0) return undefined;
  const name = `${bridge}.${vlans.id}`;
  if (name.length <= MAX_IF_NAME) return name;
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `"${name}", the gateway of VLAN ${vlans.id}, is too long a name for an interface`,
    { details: `an interface's name has at most ${MAX_IF_NAME} characters; shorten "bridge"` },
  );
}

/** Name of the interface that has the gateway's addresses. @throws CniError 7 if it is too long */
export function gatewayName(options: BridgeOptions): string {
  return vlanGatewayName(options) ?? options.bridge;
}

/**
 * Makes a bridge keep VLANs apart.
 * @throws CniError 2 where the kernel cannot
 */
export function requireVlanFiltering(host: NetworkStack, master: Link, what: BridgeOptions): void {
  if (master.vlanFiltering === true) return;
  try {
    host.links.setVlanFiltering(master.index, true);
  } catch (error) {
    if (isErrno(error, EOPNOTSUPP)) throw noVlans(what);
    throw error;
  }
  // Older kernels without it take the setting and do nothing.
  if (host.links.get(master.index)?.vlanFiltering !== true) throw noVlans(what);
}

/** Brings a port's VLANs to the plan. Safe at any time. @throws CniError 2 where the kernel cannot */
export function applyPortVlans(host: NetworkStack, port: Link, options: BridgeOptions): void {
  const plan = planPortVlans(options);
  if (plan === undefined) return;
  try {
    if (plan.removeDefault)
      host.links.deleteBridgeVlans(port.index, [{ from: DEFAULT_VLAN, to: DEFAULT_VLAN }]);
  } catch (error) {
    if (isErrno(error, EOPNOTSUPP)) throw noVlans(options);
    if (!isErrno(error, ENOENT)) throw error; // it was removed before
  }
  try {
    host.links.addBridgeVlans(port.index, plan.add);
  } catch (error) {
    if (isErrno(error, EOPNOTSUPP)) throw noVlans(options);
    throw error;
  }
}

/** The interface that has the gateway's addresses: of the VLAN, or the bridge itself. */
export function ensureGatewayLink(host: NetworkStack, master: Link, options: BridgeOptions): Link {
  const name = vlanGatewayName(options);
  if (name === undefined) return master;
  let gateway = host.links.get(name);
  const portName = gatewayPortName(options.bridge, name);
  if (gateway === undefined) {
    const mtuBytes = master.mtuBytes;
    host.links.create({ kind: 'veth', name: portName, mtuBytes, peer: { name, mtuBytes } });
    gateway = host.links.get(name);
  }
  const port = host.links.get(portName);
  if (gateway === undefined || port === undefined || gateway.peerIndex !== port.index)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `"${name}" already exists but is not the gateway of a VLAN of "${options.bridge}"`,
    );
  host.links.set(port.index, { master: master.index, up: true });
  applyPortVlans(host, port, gatewayPort(options));
  if (!gateway.up) host.links.set(gateway.index, { up: true });
  return gateway;
}

/** Gives the gateway of a VLAN, which is a port itself, the MTU of the others: the bridge has the least of all. */
export function resizeGatewayLink(
  host: NetworkStack,
  options: BridgeOptions,
  mtuBytes: number,
): void {
  const name = vlanGatewayName(options);
  if (name === undefined) return;
  for (const end of [gatewayPortName(options.bridge, name), name]) {
    const link = host.links.get(end);
    if (link !== undefined && link.mtuBytes !== mtuBytes) host.links.set(link.index, { mtuBytes });
  }
}

function gatewayPortName(bridge: string, gateway: string): string {
  return hostLinkName(`vlan gateway of ${bridge}`, gateway);
}

/** The gateway is of the one VLAN, and of none with tags. */
function gatewayPort(options: BridgeOptions): BridgeOptions {
  const { vlans } = options;
  return vlans === undefined ? options : { ...options, vlans: { ...vlans, trunk: [] } };
}

function noVlans({ vlans }: BridgeOptions): CniError {
  const field = vlans?.id === 0 ? 'vlanTrunk' : 'vlan';
  return new CniError(CNI_ERROR.unsupportedField, `unsupported field "${field}"`, {
    details:
      'this kernel has no VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING); use a bridge for each network',
  });
}
