/** Questions about who somebody is, and tokens that say it. `k8s.io/api/authentication/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { reviewKind } from '../../machinery/review.ts';
import {
  any,
  boolean,
  int64,
  kindSchema,
  object,
  string,
  strings,
  time,
} from '../../machinery/schema.ts';
import type { KubeObject } from '../../meta.ts';

export interface UserInfo {
  username: string;
  uid?: string;
  groups?: readonly string[];
  extra?: Readonly<Record<string, readonly string[]>>;
}

export interface SelfSubjectReview extends KubeObject {
  status?: { userInfo: UserInfo };
}

export interface TokenReview extends KubeObject {
  spec: { token?: string; audiences?: string[] };
  status?: {
    authenticated: boolean;
    user?: UserInfo;
    audiences?: readonly string[];
    error?: string;
  };
}

/** What a token is bound to: it holds as long as that exists. */
export interface BoundObjectReference {
  kind?: string;
  apiVersion?: string;
  name?: string;
  uid?: string;
}

export interface TokenRequest extends KubeObject {
  spec: {
    audiences?: string[];
    expirationSeconds?: number;
    boundObjectRef?: BoundObjectReference;
  };
  status?: { token: string; expirationTimestamp: string };
}

/** As upstream: a token is renewed by whoever uses it, well before its end. */
export const DEFAULT_TOKEN_SECONDS = 3600;
export const MIN_TOKEN_SECONDS = 600;
export const MAX_TOKEN_SECONDS = 2 ** 32;

const USER_INFO = object('UserInfo', {
  username: string('Name of the user.'),
  uid: string('Tells users of one name apart over time.'),
  groups: strings('Groups of the user.'),
  extra: any('What else the credential says.'),
});

const GROUP = 'authentication.k8s.io';

export const SELF_SUBJECT_REVIEW = reviewKind<SelfSubjectReview>(
  GROUP,
  'SelfSubjectReview',
  kindSchema('SelfSubjectReview', 'Who I am.', {
    status: object('SelfSubjectReviewStatus', { userInfo: USER_INFO }),
  }),
);

export const TOKEN_REVIEW = reviewKind<TokenReview>(
  GROUP,
  'TokenReview',
  kindSchema('TokenReview', 'Whose a token is.', {
    spec: object('TokenReviewSpec', {
      token: string('The token.'),
      audiences: strings('Whom the token must be meant for; missing: this API.'),
    }),
    status: object('TokenReviewStatus', {
      authenticated: boolean('Whether the token holds.'),
      user: USER_INFO,
      audiences: strings('Whom the token is meant for, of those asked about.'),
      error: string('Why it could not be checked.'),
    }),
  }),
);

/** Served as `serviceaccounts/<name>/token` only. */
export const TOKEN_REQUEST: KindDefinition<TokenRequest> = {
  ...reviewKind<TokenRequest>(
    GROUP,
    'TokenRequest',
    kindSchema('TokenRequest', 'Asks for a token of a service account.', {
      spec: object('TokenRequestSpec', {
        audiences: strings('Whom the token is meant for; missing: this API.'),
        expirationSeconds: int64('How long it holds. Default 3600.'),
        boundObjectRef: object(
          'BoundObjectReference',
          {
            kind: string('Pod, Secret or Node.'),
            apiVersion: string('v1'),
            name: string('Name of the object.'),
            uid: string('UID of the object.'),
          },
          { description: 'The token holds as long as this exists.' },
        ),
      }),
      status: object('TokenRequestStatus', {
        token: string('The token.'),
        expirationTimestamp: time('When it ends to hold.'),
      }),
    }),
  ),
  validate: validateTokenRequest,
};

const BINDABLE = ['Node', 'Pod', 'Secret'];

function validateTokenRequest({ spec }: TokenRequest): FieldError[] {
  const errors: FieldError[] = [];
  const { expirationSeconds = DEFAULT_TOKEN_SECONDS, boundObjectRef } = spec ?? {};
  const field = 'spec.expirationSeconds';
  if (expirationSeconds < MIN_TOKEN_SECONDS)
    errors.push(
      invalid(field, expirationSeconds, 'may not specify a duration less than 10 minutes'),
    );
  if (expirationSeconds > MAX_TOKEN_SECONDS)
    errors.push(
      invalid(field, expirationSeconds, 'may not specify a duration larger than 2^32 seconds'),
    );
  if (boundObjectRef === undefined) return errors;
  if (!BINDABLE.includes(boundObjectRef.kind ?? ''))
    errors.push(notSupported('spec.boundObjectRef.kind', boundObjectRef.kind ?? '', BINDABLE));
  if (!boundObjectRef.name) errors.push(required('spec.boundObjectRef.name'));
  return errors;
}
