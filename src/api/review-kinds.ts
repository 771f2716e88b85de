/** Kinds that are only asked and answered, never kept: found by clients like the others, but in no store. */
import { SELF_SUBJECT_REVIEW, TOKEN_REVIEW } from './authentication/v1/reviews.ts';
import {
  LOCAL_SUBJECT_ACCESS_REVIEW,
  SELF_SUBJECT_ACCESS_REVIEW,
  SELF_SUBJECT_RULES_REVIEW,
  SUBJECT_ACCESS_REVIEW,
} from './authorization/v1/reviews.ts';
import type { KindDefinition } from './kind.ts';

export const REVIEW_KINDS: readonly KindDefinition[] = [
  SELF_SUBJECT_REVIEW,
  TOKEN_REVIEW,
  LOCAL_SUBJECT_ACCESS_REVIEW,
  SELF_SUBJECT_ACCESS_REVIEW,
  SELF_SUBJECT_RULES_REVIEW,
  SUBJECT_ACCESS_REVIEW,
];
