/** Brings the kernel to a fabric plan: observe, compare, write only what differs. */
import type { IfIndex, NetworkStack } from '#linux/network/port.ts';
import type { FabricPlan } from './plan.ts';
import {
  applyDevice,
  applyState,
  type FabricChanges,
  type FabricState,
  observeState,
  wantedState,
} from './state.ts';

/**
 * @returns what had to be changed, and what the kernel holds now
 * @throws KernelError for the first thing that the kernel refuses
 */
export function applyFabric(
  stack: NetworkStack,
  plan: FabricPlan,
  uplink: IfIndex,
): { readonly changes: FabricChanges; readonly state: FabricState } {
  const device = applyDevice(stack, plan.device);
  const state = wantedState(plan, { vxlan: device.index, uplink });
  const changes = applyState(stack, observeState(stack, device.index), state);
  return { changes: { device: device.changed, ...changes }, state };
}
