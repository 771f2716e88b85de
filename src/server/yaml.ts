/** Answers in YAML, for people with curl. */
import { stringify } from 'yaml';
import type { Answer } from './exchange.ts';
import { YAML_TYPE } from './negotiation.ts';

export function asYaml(status: number, body: unknown): Answer {
  return { type: 'text', status, contentType: YAML_TYPE, text: stringify(body) };
}
