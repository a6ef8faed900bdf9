const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

/**
 * A date as Python's strftime writes it in its C locale, in local time. `%-d` and the like leave out leading zeros.
 * Unknown codes stay as they are.
 */
export function strftime(date: Date, format: string): string {
  const hour12 = date.getHours() % 12 || 12;
  const startOfYear = new Date(date.getFullYear(), 0, 1);
  const dayOfYear =
    Math.round(
      (new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime() - startOfYear.getTime()) / 864e5,
    ) + 1;
  const codes: Record<string, [value: string | number, digits?: number]> = {
    Y: [date.getFullYear()],
    y: [date.getFullYear() % 100, 2],
    m: [date.getMonth() + 1, 2],
    d: [date.getDate(), 2],
    j: [dayOfYear, 3],
    H: [date.getHours(), 2],
    I: [hour12, 2],
    M: [date.getMinutes(), 2],
    S: [date.getSeconds(), 2],
    p: [date.getHours() < 12 ? 'AM' : 'PM'],
    B: [MONTHS[date.getMonth()]!],
    b: [MONTHS[date.getMonth()]!.slice(0, 3)],
    A: [DAYS[date.getDay()]!],
    a: [DAYS[date.getDay()]!.slice(0, 3)],
    '%': ['%'],
  };
  return format.replace(/%(-?)([A-Za-z%])/g, (whole, bare: string, code: string) => {
    const [value, digits = 0] = codes[code] ?? [whole];
    return bare === '' ? String(value).padStart(digits, '0') : String(value);
  });
}
