/**
 * Requests that are questions (`kubectl auth can-i`, `whoami`, token reviews) and requests for tokens: a body is sent,
 * the same body comes back with its answer in `status`, nothing is stored.
 */

import {
  SELF_SUBJECT_REVIEW,
  type SelfSubjectReview,
  TOKEN_REQUEST,
  TOKEN_REVIEW,
  type TokenRequest,
  type TokenReview,
  type UserInfo,
} from '#api/authentication/v1/reviews.ts';
import {
  type AccessSpec,
  LOCAL_SUBJECT_ACCESS_REVIEW,
  SELF_SUBJECT_ACCESS_REVIEW,
  SELF_SUBJECT_RULES_REVIEW,
  type SelfSubjectRulesReview,
  SUBJECT_ACCESS_REVIEW,
  type SubjectAccessReview,
} from '#api/authorization/v1/reviews.ts';
import { SERVICE_ACCOUNT } from '#api/core/v1/service-account.ts';
import type { KindDefinition } from '#api/kind.ts';
import { invalid } from '#api/machinery/field-errors.ts';
import { badRequest, invalidObject, methodNotAllowed } from '#api/machinery/status.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { KubeObject } from '#api/meta.ts';
import type { PolicyRule } from '#api/rbac/v1/rules.ts';
import type { Clock } from '#lib/clock.ts';
import type { Authorizer } from '../authz.ts';
import { decodeSent } from '../body.ts';
import { type Answer, type Exchange, headerOf, json } from '../exchange.ts';
import { checkFields, parseFieldValidation } from '../fields.ts';
import { negotiateObject } from '../negotiation.ts';
import type { Principal } from '../principal.ts';
import type { AccessRequest } from '../rbac/rules.ts';
import type { ResourceRequest } from '../request.ts';
import { asObject } from '../resource-body.ts';
import type { ServiceAccountTokens } from '../tokens/service-account-tokens.ts';
import { asYaml } from '../yaml.ts';

export interface ReviewOptions {
  readonly authorizer: Authorizer;
  readonly tokens: ServiceAccountTokens;
  readonly clock: Clock;
}

interface Question {
  readonly exchange: Exchange<ResourceRequest>;
  readonly options: ReviewOptions;
  readonly object: KubeObject;
}

type Reviewer = (question: Question) => Promise<object> | object;

const REVIEWERS: readonly (readonly [kind: KindDefinition, Reviewer])[] = [
  [SELF_SUBJECT_REVIEW, whoAmI],
  [TOKEN_REVIEW, reviewToken],
  [SELF_SUBJECT_ACCESS_REVIEW, reviewOwnAccess],
  [SUBJECT_ACCESS_REVIEW, reviewAccess],
  [LOCAL_SUBJECT_ACCESS_REVIEW, reviewAccess],
  [SELF_SUBJECT_RULES_REVIEW, reviewRules],
];

/** @returns `undefined` if the request is about objects that are kept */
export function handleReview(
  exchange: Exchange<ResourceRequest>,
  options: ReviewOptions,
): Promise<Answer> | undefined {
  const { group, version, resource, subresource } = exchange.info;
  if (isPlace(SERVICE_ACCOUNT, exchange.info) && subresource === 'token')
    return answer(exchange, options, [TOKEN_REQUEST, requestToken]);
  const found = REVIEWERS.find(([kind]) => isPlace(kind, { group, version, resource }));
  return found === undefined ? undefined : answer(exchange, options, found);
}

function isPlace(
  kind: KindDefinition,
  place: { group: string; version: string; resource: string },
): boolean {
  return (
    kind.group === place.group && kind.version === place.version && kind.resource === place.resource
  );
}

async function answer(
  exchange: Exchange<ResourceRequest>,
  options: ReviewOptions,
  [kind, review]: readonly [KindDefinition, Reviewer],
): Promise<Answer> {
  const { info, headers } = exchange;
  if (info.verb !== 'create') throw methodNotAllowed(kind, info.verb);
  const { encoding } = negotiateObject(headerOf(headers, 'accept'));
  const sent = decodeSent(await exchange.body(), headerOf(headers, 'content-type'));
  const mode = parseFieldValidation(info.query.get('fieldValidation'));
  const checked = checkFields(kind, asObject(kind, sent.value), mode);
  const { object } = checked;
  const errors = kind.validate(object, undefined);
  if (errors.length > 0) throw invalidObject(kind, object.metadata.name ?? '', errors);
  const metadata = { ...object.metadata, creationTimestamp: formatTime(options.clock.now()) };
  const answered = await review({ exchange, options, object: { ...object, metadata } });
  return encoding === 'yaml'
    ? asYaml(201, answered)
    : json(201, answered, [...sent.warnings, ...checked.warnings]);
}

function whoAmI({ exchange, object }: Question): SelfSubjectReview {
  return { ...object, status: { userInfo: userInfoOf(exchange.principal) } };
}

function userInfoOf({ name, groups, uid, extra }: Principal): UserInfo {
  return {
    username: name,
    ...(uid === undefined ? {} : { uid }),
    groups,
    ...(extra === undefined ? {} : { extra }),
  };
}

async function reviewToken({ options, object }: Question): Promise<TokenReview> {
  const review = object as TokenReview;
  const { token = '', audiences } = review.spec ?? {};
  if (token === '') throw badRequest('spec.token: a token is needed to review it');
  const verdict = await options.tokens.check(token, audiences?.length ? audiences : undefined);
  const status: TokenReview['status'] =
    verdict.kind === 'valid'
      ? {
          authenticated: true,
          user: userInfoOf(verdict.principal),
          audiences: verdict.audiences,
        }
      : { authenticated: false, error: verdict.why };
  return { ...review, status };
}

function reviewOwnAccess({ exchange, options, object }: Question): SubjectAccessReview {
  const review = object as SubjectAccessReview;
  const request = accessOf(SELF_SUBJECT_ACCESS_REVIEW, review);
  return { ...review, status: options.authorizer.decide(exchange.principal, request) };
}

function reviewAccess({ exchange, options, object }: Question): SubjectAccessReview {
  const review = object as SubjectAccessReview;
  const { spec } = review;
  const { namespace } = exchange.info;
  const kind = namespace === '' ? SUBJECT_ACCESS_REVIEW : LOCAL_SUBJECT_ACCESS_REVIEW;
  const request = accessOf(kind, review, namespace);
  if (!spec.user && !spec.groups?.length)
    throw invalidObject(kind, '', [
      invalid('spec.user', spec.user ?? '', 'at least one of user or group must be specified'),
    ]);
  const principal: Principal = { name: spec.user ?? '', groups: spec.groups ?? [] };
  return { ...review, status: options.authorizer.decide(principal, request) };
}

/** @param local the namespace of a local review, which its question must be about */
function accessOf(
  kind: KindDefinition,
  { spec }: { spec?: AccessSpec },
  local = '',
): AccessRequest {
  const { resourceAttributes: about, nonResourceAttributes: path } = spec ?? {};
  const refuse = (field: string, value: unknown, detail: string) =>
    invalidObject(kind, '', [invalid(field, value, detail)]);
  if (about === undefined && path === undefined)
    throw refuse(
      'spec.resourceAttributes',
      null,
      'exactly one of nonResourceAttributes or resourceAttributes must be specified',
    );
  if (about !== undefined && path !== undefined)
    throw refuse(
      'spec.nonResourceAttributes',
      path,
      'cannot be specified in combination with resourceAttributes',
    );
  if (path !== undefined) {
    if (local !== '')
      throw refuse('spec.nonResourceAttributes', path, 'disallowed on this kind of request');
    return { type: 'plain', verb: path.verb ?? '', path: path.path ?? '' };
  }
  const { namespace = local } = about ?? {};
  if (local !== '' && namespace !== local)
    throw refuse('spec.resourceAttributes.namespace', namespace, `must match metadata.namespace`);
  return {
    type: 'resource',
    verb: about?.verb ?? '',
    group: about?.group ?? '',
    resource: about?.resource ?? '',
    subresource: about?.subresource ?? '',
    namespace,
    name: about?.name ?? '',
  };
}

function reviewRules({ exchange, options, object }: Question): SelfSubjectRulesReview {
  const review = object as SelfSubjectRulesReview;
  const namespace = review.spec?.namespace ?? '';
  if (namespace === '') throw badRequest('no namespace on request');
  const rules = options.authorizer.rulesOf(exchange.principal, namespace);
  const hasPaths = ({ nonResourceURLs }: PolicyRule) => (nonResourceURLs?.length ?? 0) > 0;
  return {
    ...review,
    status: {
      resourceRules: rules.filter((rule) => !hasPaths(rule)),
      nonResourceRules: rules.filter(hasPaths),
      incomplete: false,
    },
  };
}

async function requestToken({ exchange, options, object }: Question): Promise<TokenRequest> {
  const request = object as TokenRequest;
  const { namespace, name } = exchange.info;
  const { token, expiresMs, audiences } = await options.tokens.issue(
    { namespace, name },
    { ...request, spec: request.spec ?? {} },
  );
  const expirationSeconds = Math.round((expiresMs - options.clock.now()) / 1000);
  return {
    ...request,
    metadata: { ...request.metadata, name, namespace },
    spec: { ...request.spec, audiences: [...audiences], expirationSeconds },
    status: { token, expirationTimestamp: formatTime(expiresMs) },
  };
}
