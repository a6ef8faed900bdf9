export function diagnose(printed: string, options?: { platform?: string; nodeGyp?: boolean }): string;
