import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ApiError, isAlreadyExists, isConflict, isExpired, isNotFound } from '#lib/errors.ts';
import { LEASE } from '../coordination/v1/lease.ts';
import { SERVICE } from '../core/v1/service.ts';
import { invalid, required } from './field-errors.ts';
import * as status from './status.ts';

test('the errors have the codes, reasons and words of upstream', () => {
  const table: [ApiError, number, string, string][] = [
    [status.notFound(SERVICE, 'a'), 404, 'NotFound', 'services "a" not found'],
    [status.notFound(LEASE, 'a'), 404, 'NotFound', 'leases.coordination.k8s.io "a" not found'],
    [status.pathNotFound(), 404, 'NotFound', 'the server could not find the requested resource'],
    [status.alreadyExists(SERVICE, 'a'), 409, 'AlreadyExists', 'services "a" already exists'],
    [
      status.conflict(SERVICE, 'a'),
      409,
      'Conflict',
      'Operation cannot be fulfilled on services "a": the object has been modified; please apply your changes to the latest version and try again',
    ],
    [status.badRequest('no'), 400, 'BadRequest', 'no'],
    [
      status.forbidden(SERVICE, 'a', 'not yours'),
      403,
      'Forbidden',
      'services "a" is forbidden: not yours',
    ],
    [
      status.forbidden(SERVICE, '', 'not yours'),
      403,
      'Forbidden',
      'services is forbidden: not yours',
    ],
    [status.forbidden(undefined, '', 'no'), 403, 'Forbidden', 'forbidden: no'],
    [status.unauthorized(), 401, 'Unauthorized', 'Unauthorized'],
    [status.expired('too old'), 410, 'Expired', 'too old'],
    [
      status.methodNotAllowed(SERVICE, 'deletecollection'),
      405,
      'MethodNotAllowed',
      'deletecollection is not supported on resources of kind "services"',
    ],
    [
      status.unsupportedMediaType('text/html', ['application/json']),
      415,
      'UnsupportedMediaType',
      'the body of the request was in an unknown format (text/html) - accepted media types include: application/json',
    ],
    [
      status.notAcceptable(['application/json']),
      406,
      'NotAcceptable',
      'only the following media types are accepted: application/json',
    ],
    [
      status.requestEntityTooLarge(3),
      413,
      'RequestEntityTooLarge',
      'Request entity too large: limit is 3 bytes',
    ],
    [status.tooManyRequests('slow down', 1), 429, 'TooManyRequests', 'slow down'],
    [status.serviceUnavailable('starting'), 503, 'ServiceUnavailable', 'starting'],
  ];
  for (const [error, code, reason, message] of table)
    assert.deepEqual([error.status, error.reason, error.message], [code, reason, message]);
});

test('the predicates of errors.ts know them', () => {
  assert.ok(isNotFound(status.notFound(SERVICE, 'a')));
  assert.ok(isAlreadyExists(status.alreadyExists(SERVICE, 'a')));
  assert.ok(isConflict(status.conflict(SERVICE, 'a')));
  assert.ok(isExpired(status.expired('x')));
});

test('invalidObject() lists the fields in words and as causes', () => {
  const port = invalid('spec.ports[0].port', 70000, 'must be between 1 and 65535, inclusive');
  const one = status.invalidObject(SERVICE, 'web', [port]);
  assert.equal(
    one.message,
    'Service "web" is invalid: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive',
  );
  const two = status.invalidObject(LEASE, 'web', [port, required('spec.type')]);
  assert.equal(
    two.message,
    'Lease.coordination.k8s.io "web" is invalid: [spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.type: Required value]',
  );
  assert.deepEqual(status.statusOf(two), {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: two.message,
    reason: 'Invalid',
    details: {
      name: 'web',
      group: 'coordination.k8s.io',
      kind: 'Lease',
      causes: [
        {
          reason: 'FieldValueInvalid',
          message: 'Invalid value: 70000: must be between 1 and 65535, inclusive',
          field: 'spec.ports[0].port',
        },
        { reason: 'FieldValueRequired', message: 'Required value', field: 'spec.type' },
      ],
    },
    code: 422,
  });
});

test('statusOf() gives no particulars of what is no ApiError', () => {
  const body = status.statusOf(new TypeError('secret'));
  assert.equal(body.code, 500);
  assert.equal(body.reason, 'InternalError');
  assert.doesNotMatch(JSON.stringify(body), /secret/);
});

test('errorOfStatus() is the other way round of statusOf()', () => {
  const error = status.notFound(SERVICE, 'a');
  const back = status.errorOfStatus(status.statusOf(error), 500);
  assert.deepEqual(
    [back.status, back.reason, back.message, back.details],
    [404, 'NotFound', error.message, error.details],
  );
  assert.equal(status.errorOfStatus({}, 502).status, 502);
});

test('successStatus() names what was deleted', () => {
  assert.deepEqual(status.successStatus(LEASE, 'a', 'u1'), {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    details: { name: 'a', group: 'coordination.k8s.io', kind: 'leases', uid: 'u1' },
  });
});
