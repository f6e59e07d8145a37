"""The texts of `example_solutions`: solutions as model families write them, in our own words. A `¦` stands where a
mathematician would begin the next step."""

MARKED = {
    "chains": r"""Step 1: 7 + 8 + 0 = 15
¦Step 2: 5 + 6 + 1 = 12
¦Answer: \boxed{125}""",
    "numbered": r"""We count the apples day by day.

¦1. On Monday Ann has 12 apples and gives away 5. That leaves 12 - 5 = 7.
¦2. On Tuesday she buys as many as she has.
   So she has 2 * 7 = 14.
¦3. On Wednesday she eats 3, which leaves 14 - 3 = 11.

¦The answer is $\boxed{11}$.""",
    "numbered, Markdown": r"""### Step 1: Find the radius

The area is $\pi r^2 = 9\pi$. Dividing by $\pi$ gives $r^2 = 9$.

So $r = 3$.

¦### Step 2: Find the circumference

It is

\[
2 \pi r = 6 \pi.
\]

¦**Final answer:** $\boxed{6\pi}$""",
    "numbered, bold": r"""**Step 1:** The train goes 60 km/h for 2.5 h, which is 150 km.

¦**Step 2:** The rest is 240 km - 150 km = 90 km.

At 45 km/h it takes 2 h.

¦**Step 3:** In all that is 4.5 h, so the answer is $\boxed{4.5}$.""",
    "numbered, no colon (Llama 3)": r"""## Step 1
The perimeter of a square of side 6 is 4 * 6 = 24.

¦## Step 2
A triangle of the same perimeter has sides of 24 / 3 = 8.

¦The final answer is: $\boxed{8}$""",
    "numbered, bold titles (Gemma)": r"""Here's how to solve the problem:

¦**1. Cost of the pens**

A pen costs $2, so 6 pens cost 6 * 2 = 12 dollars.

¦**2. Cost of the books**

A book costs $5, so 3 books cost 15 dollars.

¦**Answer:** The total is $\boxed{27}$ dollars.""",
    "numbered, a list inside (Qwen2.5)": r"""To find the total, we go through the days.

¦1. On the first day there are two visits:
   1. in the morning 12 people come,
   2. in the evening 8 more.
   That makes 20.
¦2. On the second day there are twice as many, $2 \times 20 = 40$.

¦Therefore, in all there are $\boxed{60}$ visitors.""",
    "numbered, a list inside of steps": r"""**Step 1: What is known**
1. Tom is 3 years older than Ann.
2. Together they are 21.

¦**Step 2: An equation**
1. Ann is $x$, so Tom is $x + 3$.
2. Hence $2x + 3 = 21$ and $x = 9$.

¦**Step 3: The answer**
Tom is $\boxed{12}$.""",
    "numbered anew in each case": r"""Case A: $x \ge 0$.
¦1. Then $|x| = x$ and $2x = 6$.
¦2. So $x = 3$.

Case B: $x < 0$.
¦1. Then $|x| = -x$ and $0 = 6$.
¦2. That is impossible.

¦Therefore the only solution is $\boxed{3}$.""",
    "numbered in brackets": r"""(1) The three angles of a triangle add up to 180 degrees.
¦(2) Two of them are 50 and 60, so the third is 180 - 110 = 70.
¦Hence the answer is $\boxed{70}$.""",
    "bullets": r"""We add up what each child has:

¦- Ann has 4 marbles.
¦- Ben has twice as many, which is 8.
¦- Cleo has 3 less than Ben, which is 5.

¦So they have $4 + 8 + 5 = \boxed{17}$ marbles.""",
    "bullets of bold words": r"""* **Price:** A ticket costs 12 dollars, and 5 of them cost 60.
¦* **Discount:** Of these, 10% or 6 dollars are taken off.
¦* **Total:** That leaves $\boxed{54}$ dollars.""",
    "bullets below a line": r"""First, the cost of the pens:
- A pen costs 2 dollars.
- So 4 pens cost $4 \times 2 = 8$ dollars.

¦Next, the cost of the books:
- A book costs 5 dollars, and 2 books cost 10.

¦Altogether that is $\boxed{18}$ dollars.""",
    "paragraphs": r"""Let x be the number of boys. Then there are 30 - x girls.

¦Every boy has two pens and every girl three. Together they have 78, so 2x + 3(30 - x) = 78.

¦Solving this, 90 - x = 78 and x = 12. There are \boxed{12} boys.""",
    "a remark behind the answer": r"""The sum of the first $n$ odd numbers is $n^2$.

¦With $n = 10$ it is $\boxed{100}$.

I hope this helps! Let me know if anything is unclear.""",
    "a check behind the answer": (
        "Doubling both sides of $x / 2 = 7$ gives $x = 14$. "
        r"¦The answer is $\boxed{14}$. We can check it: 14 / 2 = 7."
    ),
    "LaTeX": r"""We use the quadratic formula with $a = 1$, $b = -5$ and $c = 6$. The discriminant is

$$
b^2 - 4ac = 25 - 24

= 1.
$$

¦Both roots are therefore rational:

\begin{align*}
x_1 &= \frac{5 + 1}{2} = 3, \\

x_2 &= \frac{5 - 1}{2} = 2.
\end{align*}

¦Their sum is $\boxed{5}$.""",
    "LaTeX, dollars without a partner": r"""The square has area $$ s^2 = 49.

¦So its side is $s = 7$, and

$$
4s = 28.
$$

¦The perimeter is $\boxed{28}$.""",
    "code": r"""We let a program count the pairs.

```python
count = 0
for a in range(1, 10):
    # 1. the smaller number comes first

    # 2. and both are digits
    count += 9 - a

print(count)
```

¦It prints 36. Each pair is counted once, so there are \boxed{36}.""",
    "code and one sentence": r"""```python
print(sum(n for n in range(1, 101) if n % 7 == 0))
```
¦The program prints 735, so the answer is $\boxed{735}$.""",
    "lines with calculator marks (GSM8K)": r"""Mia sold 48 / 2 = <<48/2=24>>24 cups on Sunday
¦In all she sold 48 + 24 = <<48+24=72>>72 cups.
¦At 2 dollars a cup that is 72 * 2 = $<<72*2=144>>144
¦#### \boxed{144}""",
    "lines": r"""The shop opens at 9 and closes at 17, so it is open for 8 hours.
¦In an hour 15 customers come: $8 \times 15 = 120$
¦Every third buys something: $120 / 3 = 40$
¦$\boxed{40}$""",
    "lines with negative numbers": r"""4 - 9 = -5
¦-5 - 2 = -7
¦-7 + 8 = 1
¦\boxed{1}""",
    "wrapped lines": r"""A box holds 12 eggs, and the farmer has 100
eggs in all, of which 4 are broken. ¦He fills
96 / 12 = 8 boxes with what is left of
them. ¦So he needs $\boxed{8}$ boxes.""",
    "abbreviations": (
        "Dr. Lee sees e.g. 6 patients before noon and 9 after it, i.e. 15 a day. ¦Patient No. 7 pays 40 dollars, as "
        r"all do, so a day brings approx. 600 dollars. ¦At 5 p.m. she closes. ¦In 5 days that is $\boxed{3000}$."
    ),
    "a list in one line": (
        "1. The bus has 40 seats. ¦2. A quarter of them are free. "
        r"¦3. So 30 are taken, and the answer is $\boxed{30}$."
    ),
    "one blob": (
        "First note that 3.5 hours are 210 minutes. ¦He reads 2 pages a minute! ¦So he reads 420 pages in all? ¦Yes, "
        r"since 2 * 210 = 420. ¦The book has 500 pages, so 80 are left and the answer is \boxed{80}."
    ),
    "Chinese": (
        "设小明有x个苹果，则小红有2x个。¦两人共有18个，所以3x=18。¦解得x=6！"
        r"¦因此小明有6个苹果，答案是\boxed{6}。"
    ),
    "Chinese, numbered": r"""第一步：设长为a，宽为b，周长为20，所以a+b=10。
¦第二步：面积为24，所以ab=24。
¦第三步：解得a=6，b=4。
¦答案：\boxed{6}""",
    "thinking (DeepSeek-R1 distills, QwQ)": r"""Okay, so I need the sum of the even numbers up to 10.

¦They are 2, 4, 6, 8, 10. Their sum is 2 + 4 + 6 + 8 + 10 = 32.

¦Wait, 2 + 4 + 6 is 12, and 8 + 10 is 18, so it is 30. So \boxed{30}.

¦Let me check it with the formula: 5 * 6 = 30. Yes.
</think>

¦The even numbers up to 10 are 2, 4, 6, 8 and 10.

¦Their sum is $\boxed{30}$.""",
    "thinking, numbered answer (Qwen3)": r"""<think>
We need the area of a 3 by 4 rectangle with a 1 by 1 hole.

¦3 times 4 is 12, minus 1 is 11.
</think>

¦**Step 1:** The rectangle has area $3 \cdot 4 = 12$.

¦**Step 2:** The hole has area 1, so the rest is $12 - 1 = 11$.

¦**Final Answer:** $\boxed{11}$""",
    "thinking, one line (Magistral)": (
        r"[THINK]Seven times eight is 56. ¦No more is asked.[/THINK]¦The product is $\boxed{56}$."
    ),
    "thinking (EXAONE Deep)": r"""<thought>
Half of 90 is 45.

¦A third of 45 is 15.
</thought>

¦A third of half of 90 is $\boxed{15}$.""",
}
