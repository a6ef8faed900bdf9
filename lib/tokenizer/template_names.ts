import { isObject } from './invalid.js';

/**
 * Templates by name of a tokenizer_config.json's `chat_template`: a string, or several with names. Undefined where
 * there is none.
 */
export function chatTemplatesOf(config: Record<string, unknown>): Map<string, string> | undefined {
  const { chat_template: template } = config;
  if (typeof template === 'string') return new Map([['default', template]]);
  if (!Array.isArray(template)) return undefined;
  const named = template.filter(isObject).filter((entry) => typeof entry.template === 'string');
  const templates = new Map(named.map((entry) => [String(entry.name), entry.template as string]));
  const first = [...templates.values()][0];
  if (first !== undefined && !templates.has('default')) templates.set('default', first);
  return templates.size > 0 ? templates : undefined;
}

/**
 * Adds named templates to a `chat_template`, in the form that tokenizer_config.json has for several. A single template
 * becomes the default one.
 */
export function withNamedTemplates(
  template: unknown,
  named: ReadonlyArray<{ name: string; template: unknown }>,
): unknown {
  if (named.length === 0) return template;
  const own: unknown[] = Array.isArray(template)
    ? template
    : typeof template === 'string'
      ? [{ name: 'default', template }]
      : [];
  return [...own, ...named];
}
