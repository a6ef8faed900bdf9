/** A named point in a plot, in pixels. */
export interface NamedPoint {
  name: string;
  x: number;
  y: number;
}

/** Where the name of a point is written. */
export interface PlacedLabel extends NamedPoint {
  anchor: 'start' | 'middle' | 'end';
}

export interface Frame {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** The width of a capital or a digit in the font of labels; names of plans consist of these. */
const CHARACTER_WIDTH = 7.6;
const LINE_HEIGHT = 14;

/**
 * Puts a name beside each point, where it covers no other name or point and stays inside the frame. A name for which
 * there is no such place is left out: the point's tooltip and the tables have it.
 */
export function placeLabels(
  points: readonly NamedPoint[],
  frame: Frame,
  distance: number,
): Array<PlacedLabel | undefined> {
  const occupied: Frame[] = points.map(({ x, y }) => ({
    left: x - distance,
    right: x + distance,
    top: y - distance,
    bottom: y + distance,
  }));
  return points.map((point, index) => {
    for (const label of placesAround(point, distance)) {
      const box = boxOf(label);
      const inside =
        box.left >= frame.left && box.right <= frame.right && box.top >= frame.top && box.bottom <= frame.bottom;
      if (!inside || occupied.some((other, i) => i !== index && overlap(box, other))) continue;
      occupied.push(box);
      return label;
    }
    return undefined;
  });
}

function placesAround({ name, x, y }: NamedPoint, distance: number): PlacedLabel[] {
  return [
    { name, x: x + distance, y: y - distance, anchor: 'start' },
    { name, x: x - distance, y: y - distance, anchor: 'end' },
    { name, x: x + distance, y: y + distance + 8, anchor: 'start' },
    { name, x: x - distance, y: y + distance + 8, anchor: 'end' },
    { name, x, y: y - distance - 8, anchor: 'middle' },
    { name, x, y: y + distance + 16, anchor: 'middle' },
  ];
}

function boxOf({ name, x, y, anchor }: PlacedLabel): Frame {
  const width = name.length * CHARACTER_WIDTH;
  const left = anchor === 'start' ? x : anchor === 'end' ? x - width : x - width / 2;
  return { left, right: left + width, top: y - LINE_HEIGHT + 3, bottom: y + 3 };
}

function overlap(a: Frame, b: Frame): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
