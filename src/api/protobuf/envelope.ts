/**
 * Objects as Kubernetes clients send them in protobuf (`application/vnd.kubernetes.protobuf`):
 *
 *     6b 38 73 00                       "k8s", NUL
 *     runtime.Unknown {
 *       1: TypeMeta { 1: apiVersion, 2: kind }
 *       2: raw                          the object's own message, or JSON
 *       3: contentEncoding              always empty
 *       4: contentType                  empty for protobuf
 *     }
 */
import { DecodeError } from '#lib/errors.ts';
import { decodeMessage, type MessageTable } from '#wire/protobuf/message.ts';
import {
  CONFIG_MAP_MESSAGE,
  ENDPOINTS_MESSAGE,
  EVENT_MESSAGE,
  EVENTS_EVENT_MESSAGE,
  NAMESPACE_MESSAGE,
  NODE_MESSAGE,
  SECRET_MESSAGE,
  SERVICE_ACCOUNT_MESSAGE,
  SERVICE_MESSAGE,
} from './core.ts';
import {
  CLUSTER_ROLE_BINDING_MESSAGE,
  CLUSTER_ROLE_MESSAGE,
  DELETE_OPTIONS_MESSAGE,
  ENDPOINT_SLICE_MESSAGE,
  EVICTION_MESSAGE,
  INGRESS_CLASS_MESSAGE,
  INGRESS_MESSAGE,
  LEASE_MESSAGE,
  NETWORK_POLICY_MESSAGE,
  ROLE_BINDING_MESSAGE,
  ROLE_MESSAGE,
  SELF_SUBJECT_ACCESS_REVIEW_MESSAGE,
  SELF_SUBJECT_REVIEW_MESSAGE,
  SELF_SUBJECT_RULES_REVIEW_MESSAGE,
  SUBJECT_ACCESS_REVIEW_MESSAGE,
  TOKEN_REQUEST_MESSAGE,
  TOKEN_REVIEW_MESSAGE,
} from './groups.ts';
import { POD_MESSAGE } from './pod.ts';
import { message, optional, str } from './table.ts';

const MAGIC = [0x6b, 0x38, 0x73, 0x00];

const UNKNOWN = message('Unknown', {
  1: optional('typeMeta', message('TypeMeta', { 1: str('apiVersion'), 2: str('kind') })),
  2: optional('raw', 'bytes'),
  3: str('contentEncoding'),
  4: str('contentType'),
});

const AUTHENTICATION = 'authentication.k8s.io/v1';
const AUTHORIZATION = 'authorization.k8s.io/v1';
const RBAC = 'rbac.authorization.k8s.io/v1';
const NETWORKING = 'networking.k8s.io/v1';

/** By `apiVersion/kind`. */
const MESSAGES: ReadonlyMap<string, MessageTable> = new Map([
  ['v1/ConfigMap', CONFIG_MAP_MESSAGE],
  ['v1/Endpoints', ENDPOINTS_MESSAGE],
  ['v1/Event', EVENT_MESSAGE],
  ['events.k8s.io/v1/Event', EVENTS_EVENT_MESSAGE],
  ['v1/Namespace', NAMESPACE_MESSAGE],
  ['v1/Node', NODE_MESSAGE],
  ['v1/Pod', POD_MESSAGE],
  ['v1/Secret', SECRET_MESSAGE],
  ['v1/Service', SERVICE_MESSAGE],
  ['v1/ServiceAccount', SERVICE_ACCOUNT_MESSAGE],
  ['coordination.k8s.io/v1/Lease', LEASE_MESSAGE],
  ['discovery.k8s.io/v1/EndpointSlice', ENDPOINT_SLICE_MESSAGE],
  ['policy/v1/Eviction', EVICTION_MESSAGE],
  ['policy/v1beta1/Eviction', EVICTION_MESSAGE],
  [`${NETWORKING}/Ingress`, INGRESS_MESSAGE],
  [`${NETWORKING}/IngressClass`, INGRESS_CLASS_MESSAGE],
  [`${NETWORKING}/NetworkPolicy`, NETWORK_POLICY_MESSAGE],
  [`${RBAC}/ClusterRole`, CLUSTER_ROLE_MESSAGE],
  [`${RBAC}/ClusterRoleBinding`, CLUSTER_ROLE_BINDING_MESSAGE],
  [`${RBAC}/Role`, ROLE_MESSAGE],
  [`${RBAC}/RoleBinding`, ROLE_BINDING_MESSAGE],
  [`${AUTHENTICATION}/SelfSubjectReview`, SELF_SUBJECT_REVIEW_MESSAGE],
  [`${AUTHENTICATION}/TokenRequest`, TOKEN_REQUEST_MESSAGE],
  [`${AUTHENTICATION}/TokenReview`, TOKEN_REVIEW_MESSAGE],
  [`${AUTHORIZATION}/LocalSubjectAccessReview`, SUBJECT_ACCESS_REVIEW_MESSAGE],
  [`${AUTHORIZATION}/SelfSubjectAccessReview`, SELF_SUBJECT_ACCESS_REVIEW_MESSAGE],
  [`${AUTHORIZATION}/SelfSubjectRulesReview`, SELF_SUBJECT_RULES_REVIEW_MESSAGE],
  [`${AUTHORIZATION}/SubjectAccessReview`, SUBJECT_ACCESS_REVIEW_MESSAGE],
]);

export type ProtobufObject =
  | {
      readonly kind: 'object';
      /** In JSON's form, with `apiVersion` and `kind`. */
      readonly object: Record<string, unknown>;
      readonly unknownFields: readonly string[];
    }
  /** There is no table for it: the client must send JSON. */
  | { readonly kind: 'unknown-kind'; readonly apiVersion: string; readonly name: string };

/** @throws DecodeError for bytes that are not what is drawn above */
export function decodeProtobufObject(bytes: Uint8Array): ProtobufObject {
  if (MAGIC.some((byte, i) => bytes[i] !== byte))
    throw refusal('prefix', 'it does not begin with "k8s" and NUL');
  const { typeMeta, raw, contentEncoding, contentType } = decodeMessage(
    bytes.subarray(MAGIC.length),
    UNKNOWN,
  ).value as { typeMeta?: Partial<Record<'apiVersion' | 'kind', string>> } & Partial<
    Record<'raw' | 'contentEncoding' | 'contentType', string>
  >;
  const { apiVersion = '', kind = '' } = typeMeta ?? {};
  if (contentEncoding !== undefined) throw refusal('contentEncoding', `"${contentEncoding}"`);
  if (contentType !== undefined && contentType !== 'application/vnd.kubernetes.protobuf')
    throw refusal('contentType', `"${contentType}" inside protobuf is not understood`);
  const table =
    kind === 'DeleteOptions' ? DELETE_OPTIONS_MESSAGE : MESSAGES.get(`${apiVersion}/${kind}`);
  if (table === undefined) return { kind: 'unknown-kind', apiVersion, name: kind };
  const { value, unknownFields } = decodeMessage(Buffer.from(raw ?? '', 'base64'), table);
  return { kind: 'object', object: { apiVersion, kind, ...value }, unknownFields };
}

function refusal(field: string, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'Kubernetes protobuf', field });
}
