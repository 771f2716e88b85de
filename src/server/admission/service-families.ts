/**
 * Which address families a service has: fills `ipFamilyPolicy` and `ipFamilies` as kubernetes does
 * (`pkg/registry/core/service/storage/alloc.go`). Pure.
 */
import type { IpFamilyName, ServiceSpec } from '#api/core/v1/service.ts';
import type { FieldError } from '#api/kind.ts';
import { familyOf, parseIp } from '#lib/ip.ts';

export const HEADLESS = 'None';

export type Families =
  | { readonly spec: ServiceSpec; readonly errors?: undefined }
  | { readonly errors: readonly FieldError[] };

export function familyName(family: 4 | 6): IpFamilyName {
  return family === 4 ? 'IPv4' : 'IPv6';
}

export function isHeadless(spec: ServiceSpec): boolean {
  return spec.clusterIP === HEADLESS || spec.clusterIPs?.[0] === HEADLESS;
}

/**
 * Fills what the spec leaves open.
 * @param configured the families that services can have here, the primary first
 */
export function fillFamilies(spec: ServiceSpec, configured: readonly IpFamilyName[]): Families {
  const errors = checkPolicy(spec);
  if (errors.length > 0) return { errors };
  const primary = configured[0] ?? 'IPv4';
  const families = inferFamilies(spec);
  if (isHeadless(spec) && Object.keys(spec.selector ?? {}).length === 0)
    return { spec: fillSelectorless(spec, families, primary) };

  const problems: FieldError[] = families.flatMap((family, i) =>
    configured.includes(family)
      ? []
      : [
          {
            type: 'Invalid',
            field: `spec.ipFamilies[${i}]`,
            value: family,
            detail: 'not configured on this cluster',
          },
        ],
  );
  const policy = spec.ipFamilyPolicy ?? 'SingleStack';
  if (policy === 'RequireDualStack' && configured.length < 2)
    problems.push({
      type: 'Invalid',
      field: 'spec.ipFamilyPolicy',
      value: policy,
      detail: 'this cluster is not configured for dual-stack services',
    });
  if (problems.length > 0) return { errors: problems };
  const filled = families.length === 0 ? [primary] : families;
  if (policy !== 'SingleStack' && filled.length === 1 && configured.length > 1)
    filled.push(other(filled[0] ?? primary));
  return { spec: { ...spec, ipFamilyPolicy: policy, ipFamilies: filled } };
}

function checkPolicy(spec: ServiceSpec): FieldError[] {
  if ((spec.ipFamilyPolicy ?? 'SingleStack') !== 'SingleStack') return [];
  const errors: FieldError[] = [];
  for (const [what, list] of [
    ['clusterIPs', spec.clusterIPs],
    ['ipFamilies', spec.ipFamilies],
  ] as const)
    if (list?.length === 2)
      errors.push({
        type: 'Invalid',
        field: 'spec.ipFamilyPolicy',
        value: spec.ipFamilyPolicy ?? null,
        detail: `must be RequireDualStack or PreferDualStack when multiple ${what} are specified`,
      });
  return errors;
}

/** The families that are named, and those of addresses that are asked for. */
function inferFamilies(spec: ServiceSpec): IpFamilyName[] {
  const families = [...(spec.ipFamilies ?? [])];
  for (const [i, text] of (spec.clusterIPs ?? []).entries()) {
    const address = parseIp(text);
    if (address === undefined || families[i] !== undefined) continue;
    families[i] = familyName(familyOf(address));
  }
  return families;
}

/** Endpoints of a headless service without selector are made by hand and may be of any family, whatever the cluster has. */
function fillSelectorless(
  spec: ServiceSpec,
  families: readonly IpFamilyName[],
  primary: IpFamilyName,
): ServiceSpec {
  const policy = spec.ipFamilyPolicy ?? 'RequireDualStack';
  const filled = families.length === 0 ? [primary] : [...families];
  if (policy !== 'SingleStack' && filled.length === 1) filled.push(other(filled[0] ?? primary));
  return { ...spec, ipFamilyPolicy: policy, ipFamilies: filled };
}

function other(family: IpFamilyName): IpFamilyName {
  return family === 'IPv4' ? 'IPv6' : 'IPv4';
}
